package config

import "slices"

// maxErrors is about how many errors are still worth reading.
const maxErrors = 1000

// check finds what only the whole file shows.
func (d *decoder) check(c *Config, root *node) {
	d.checkZones(c, root)
	d.checkOrigins(c, root)
	d.checkSites(c, root)
	d.checkStreams(c, root)
	d.checkServers(c, root)
	d.checkNames(c, root)
	d.checkRecords(c, root)
	d.checkListeners(c, root)
	d.checkTLS(c, root)
	d.checkFleet(c, root)
	d.checkUse(c, root)
}

// refer checks that a name is one of those there are.
func (d *decoder) refer(n *node, what, name string, have []string) bool {
	if name == "" {
		return false
	}
	if slices.Contains(have, name) {
		return true
	}
	d.report(n, "unknown %s %s%s", what, quote(name), instead(name, have))
	return false
}

func (c *Config) zoneNames() []string {
	return names(c.Zones, func(z *Zone) string { return z.Name })
}

func (c *Config) originNames() []string {
	return names(c.Origins, func(o *Origin) string { return o.Name })
}

func (d *decoder) checkZones(c *Config, root *node) {
	if len(c.Zones) > 0 {
		d.refer(root.at("home"), "zone", c.Home, c.zoneNames())
		if c.Node.Zone != auto {
			d.checkOwnZone(c, root)
		}
	}
	seen := map[string]string{}
	for _, z := range c.Zones {
		for i, n := range z.Nodes {
			at := root.at("zones", z.Name, "nodes", i)
			if len(n.Addrs) == 0 {
				continue // its error was reported
			}
			if first := seen[n.ID()]; first != "" {
				d.report(at, "%s is a node of %s already: want one entry a node", n.ID(), first)
			}
			seen[n.ID()] = z.Name
		}
	}
}

// checkOwnZone checks that this node's zone, which may come from outside the file, is one of zones.
func (d *decoder) checkOwnZone(c *Config, root *node) {
	n := root.get("node").get("zone")
	if n != nil && n.text == c.Node.Zone {
		d.refer(n, "zone", c.Node.Zone, c.zoneNames())
		return
	}
	if c.Zone(c.Node.Zone) == nil {
		d.report(root.at("zones"), "lacks the zone of this node, %s%s", quote(c.Node.Zone), instead(c.Node.Zone, c.zoneNames()))
	}
}

func (d *decoder) checkOrigins(c *Config, root *node) {
	for i := range c.Origins {
		o := &c.Origins[i]
		n := root.at("origins", o.Name)
		if len(o.Servers) == 0 {
			d.report(n, "servers is missing: want a list such as [\"http://10.0.1.20:8080\"]")
			continue
		}
		if d.refer(n.at("via"), "zone", o.Via, c.zoneNames()) && len(c.Zone(o.Via).Nodes) == 0 {
			d.report(n.at("via"), "%s has no nodes to ask", quote(o.Via))
		}
		d.checkPool(c, o, n)
		if n.at("servers").broken() { // whose they are is not known
			continue
		}
		if !o.forSites() && o.Via != "" {
			d.report(n.at("via"), "is for HTTP, and the servers are those of streams")
		}
		if !o.forSites() && o.Check.HTTP != "" {
			d.report(n.at("check", "http"), "needs servers with http://, https:// or h2c://: want tcp: true")
		}
		if !c.uses(o.Name) {
			d.warn(n, "no site and no stream uses it")
		}
	}
}

// checkPool looks at the servers of an origin together.
func (d *decoder) checkPool(c *Config, o *Origin, n *node) {
	seen := map[Server]bool{}
	nodes := o.serverNodes(n)
	for i, s := range o.Servers {
		if s.Zone != "" {
			d.refer(n.at("servers", s.Zone), "zone", s.Zone, c.zoneNames())
		}
		switch {
		case s.Host == "": // its error was reported
		case seen[s]:
			d.report(nodes[i], "is given twice")
		case (s.Scheme == "") == o.forSites():
			d.report(nodes[i], "mixes URLs, for sites, with host:port, for streams: want two origins")
		}
		seen[s] = true
	}
}

// serverNodes is where in the file each server of the origin at n stands.
func (o *Origin) serverNodes(n *node) []*node {
	var nodes []*node
	position := map[string]int{}
	for _, s := range o.Servers {
		path := []any{"servers", s.Zone, position[s.Zone]}
		if s.Zone == "" {
			path = slices.Delete(path, 1, 2)
		}
		nodes = append(nodes, n.at(path...))
		position[s.Zone]++
	}
	return nodes
}

// forSites reports whether the servers that could be read speak HTTP; else they are those of streams.
func (o *Origin) forSites() bool {
	first := find(o.Servers, func(s *Server) bool { return s.Host != "" })
	return first != nil && first.Scheme != ""
}

func (c *Config) uses(origin string) bool {
	for i := range c.Sites {
		if slices.ContainsFunc(c.Sites[i].Routes, func(r Route) bool { return r.Origin == origin }) {
			return true
		}
	}
	return c.streams(origin)
}

// streams reports whether a stream goes to the origin.
func (c *Config) streams(origin string) bool {
	return slices.ContainsFunc(c.Streams, func(s Stream) bool { return s.Origin == origin })
}

func (d *decoder) checkSites(c *Config, root *node) {
	taken := map[string]string{}
	for i := range c.Sites {
		s := &c.Sites[i]
		n := root.at("sites", s.Name)
		for j, h := range s.Hosts {
			if first := taken[h]; first != "" && h != "" {
				d.report(n.at("hosts", j), "%s is a host of %s already", quote(h), first)
			}
			taken[h] = "sites." + s.Name
		}
		for j := range s.Routes {
			d.checkOriginOf(c, s.Routes[j], root, n, n.at("routes", j))
		}
	}
}

// checkOriginOf checks that a route's own origin, or the one it has from its site, is there and speaks HTTP.
func (d *decoder) checkOriginOf(c *Config, r Route, root, site, route *node) {
	at := site.at("origin")
	if own := route.get("origin"); own != nil {
		at = own
	}
	if r.Origin == "" {
		d.report(at, "origin is missing: want the name of an origin%s", instead("", c.originNames()))
		return
	}
	if !d.refer(at, "origin", r.Origin, c.originNames()) {
		return
	}
	o, origin := c.Origin(r.Origin), root.at("origins", r.Origin)
	switch {
	case len(o.Servers) == 0 || origin.at("servers").broken() || o.forSites():
	case c.streams(o.Name):
		d.report(at, "%s has servers of streams: want one with http://, https:// or h2c:// servers", quote(o.Name))
	default:
		d.lacksScheme(o, origin, at.path())
	}
}

// lacksScheme reports servers without a scheme that no stream goes to, at the key that asks them.
func (d *decoder) lacksScheme(o *Origin, n *node, asks string) {
	for i, at := range o.serverNodes(n) {
		address := hostPort(o.Servers[i].Host, o.Servers[i].Port)
		d.report(at, "%s has no scheme, and %s asks it: want \"http://%s\" (or https://, h2c://) for a site", quote(address), asks, address)
	}
}

func (d *decoder) checkStreams(c *Config, root *node) {
	for _, s := range c.Streams {
		n := root.at("streams", s.Name)
		if s.Network == "udp" && s.ProxyProtocol == "v1" {
			d.report(n.at("proxy_protocol"), "v1 is text for tcp: want v2 for udp")
		}
		if !d.refer(n.at("origin"), "origin", s.Origin, c.originNames()) {
			continue
		}
		if o := c.Origin(s.Origin); o.forSites() && !root.at("origins", o.Name, "servers").broken() {
			d.report(n.at("origin"), "%s has servers for sites: want one with host:port servers, without http://", quote(s.Origin))
		}
	}
}
