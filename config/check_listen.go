package config

import (
	"net/netip"
	"strings"
)

// listener is one socket the configuration asks for.
type listener struct {
	network, address string
	at               *node
	name             string
}

// listeners lists every socket. Empty addresses and port 0 take nobody's place.
func (c *Config) listeners(root *node) []listener {
	all := []listener{
		{"tcp", c.Listen.HTTP, root.at("listen", "http"), "listen.http"},
		{"tcp", c.Listen.HTTPS, root.at("listen", "https"), "listen.https"},
		{"tcp", c.DNS.Listen, root.at("dns", "listen"), "dns.listen"},
		{"udp", c.DNS.Listen, root.at("dns", "listen"), "dns.listen"},
		{"tcp", c.Admin.Listen, root.at("admin", "listen"), "admin.listen"},
		{"tcp", c.Admin.Metrics.Listen, root.at("admin", "metrics", "listen"), "admin.metrics.listen"},
	}
	if !c.Lone() {
		all = append(all, listener{"tcp", c.Fleet.Listen, root.at("fleet", "listen"), "fleet.listen"})
	}
	for _, s := range c.Streams {
		all = append(all, listener{s.Network, s.Listen, root.at("streams", s.Name, "listen"), "streams." + s.Name + ".listen"})
	}
	return all
}

func (d *decoder) checkListeners(c *Config, root *node) {
	if host, _, err := splitHostPort(c.Admin.Listen, 0); err == nil && !isLoopback(host) {
		d.report(root.at("admin", "listen"), "%s is not on loopback, and whoever reaches it rules this node: want 127.0.0.1:%d",
			quote(c.Admin.Listen), portOf(c.Admin.Listen))
	}
	seen := map[string][]listener{}
	for _, l := range c.listeners(root) {
		port := portOf(l.address)
		if port == 0 {
			continue
		}
		place := hostPort(l.network, port)
		for _, other := range seen[place] {
			if l.overlaps(other) {
				d.collision(l, other)
				break
			}
		}
		seen[place] = append(seen[place], l)
	}
}

// collision reports two listeners at one place, at the one that the file names.
func (d *decoder) collision(l, other listener) {
	if !strings.HasSuffix(l.name, l.at.key) || l.at.key == "" {
		l, other = other, l
	}
	d.report(l.at, "%s is taken by %s (%s %s)", quote(l.address), other.name, other.network, other.address)
}

// overlaps reports whether two listeners of one network and port want the same address.
func (l listener) overlaps(o listener) bool {
	a, _, _ := splitHostPort(l.address, 0)
	b, _, _ := splitHostPort(o.address, 0)
	return isAny(a) || isAny(b) || sameHost(a) == sameHost(b)
}

func isAny(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}

func sameHost(host string) string {
	if host == "localhost" {
		return "127.0.0.1"
	}
	return host
}

func (d *decoder) checkTLS(c *Config, root *node) {
	t := c.TLS
	if c.Listen.HTTPS != "" && len(t.Certificates) == 0 && t.ACME == nil && !t.SelfSigned {
		d.report(root.at("listen", "https"), "needs a certificate: want tls: {certificates: [{cert: …, key: …}]}, {acme: {email: …}} or {self_signed: true}")
	}
	if t.ACME == nil {
		return
	}
	n, plain := root.at("tls", "acme"), 0
	for _, h := range c.Hosts() {
		_, err := netip.ParseAddr(h)
		switch {
		case strings.HasPrefix(h, "*."):
			d.warn(n, "%s gets no certificate: a wildcard needs DNS-01, which is not in this version", h)
		case err == nil:
			d.warn(n, "%s gets no certificate: it is an address", h)
		default:
			plain++
		}
	}
	if plain == 0 {
		d.report(n, "no site has a host name to order a certificate for: want one in hosts beside \"*\"")
	}
}

// checkFleet checks that nodes can find each other.
func (d *decoder) checkFleet(c *Config, root *node) {
	peers := c.Peers()
	if len(peers) == 0 {
		return
	}
	if len(c.HubAddrs()) == 0 {
		at := root.at("home")
		if at == root {
			at = root.at("zones")
		}
		d.report(at, "no zone is a Region, whose nodes would be the hub: want home: ZONE with nodes, or fleet.hub")
	}
	if c.Listen.HTTP == "" && c.Listen.HTTPS == "" {
		d.report(root.at("listen"), "nodes check each other over HTTP, and neither http nor https listens: want one of them")
	}
	if c.Fleet.Key.File != "" || c.Fleet.Key.Env != "" {
		return
	}
	for _, p := range peers {
		if !p.first().IsLoopback() {
			d.lacksKey(p, root)
			return
		}
	}
}

// lacksKey warns that a peer cannot join, at fleet or, as that may be left out, at the zones.
func (d *decoder) lacksKey(p Peer, root *node) {
	at := root.get("fleet")
	if at == nil {
		at = root.at("zones")
	}
	d.warnAt(at.where(), "fleet.key", "is not set: the fleet stays on loopback, and nodes on other machines, such as %s in %s, cannot join: "+
		"want fleet: {key: {file: FILE}}, the same file of at least %d characters on every node", p.ID(), p.Zone, minSecret)
}
