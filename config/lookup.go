package config

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
)

// regionName is how AWS names Regions: us-west-2, ap-southeast-1, us-gov-east-1.
var regionName = regexp.MustCompile(`^[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}$`)

// IsRegion reports whether name is that of a Region: us-west-2 is, us-west-2-lax-1a is not.
func IsRegion(name string) bool { return regionName.MatchString(name) }

// IsRegion reports whether the zone is a Region's own edge.
func (z *Zone) IsRegion() bool { return z.Parent == "" && IsRegion(z.Name) }

// Zone finds a zone by name.
func (c *Config) Zone(name string) *Zone {
	return find(c.Zones, func(z *Zone) bool { return z.Name == name })
}

// Origin finds an origin by name.
func (c *Config) Origin(name string) *Origin {
	return find(c.Origins, func(o *Origin) bool { return o.Name == name })
}

// Site finds a site by name.
func (c *Config) Site(name string) *Site {
	return find(c.Sites, func(s *Site) bool { return s.Name == name })
}

// Stream finds a stream by name.
func (c *Config) Stream(name string) *Stream {
	return find(c.Streams, func(s *Stream) bool { return s.Name == name })
}

// OriginsOf lists the origins behind a steered name: those of every route of its site, or that of its stream.
func (c *Config) OriginsOf(n Name) []string {
	if st := c.Stream(n.Stream); st != nil {
		return []string{st.Origin}
	}
	var names []string
	if site := c.Site(n.Site); site != nil {
		for _, r := range site.Routes {
			if find(names, func(s *string) bool { return *s == r.Origin }) == nil {
				names = append(names, r.Origin)
			}
		}
	}
	return names
}

func find[T any](list []T, is func(*T) bool) *T {
	for i := range list {
		if is(&list[i]) {
			return &list[i]
		}
	}
	return nil
}

// Self is this node's own entry in zones, or nil: in its zone, the entry with one of node.address, else with the
// address and port of listen.http or https, else the only entry.
func (c *Config) Self() *ZoneNode {
	z := c.Zone(c.Node.Zone)
	if z == nil {
		return nil
	}
	mine := indexes(z.Nodes, func(n ZoneNode) bool { return len(c.Node.Address) == 0 || n.has(c.Node.Address...) })
	for _, narrower := range []func(ZoneNode) bool{c.listensAs, c.listensOn} {
		if len(mine) > 1 {
			if fewer := slices.DeleteFunc(slices.Clone(mine), func(i int) bool { return !narrower(z.Nodes[i]) }); len(fewer) > 0 {
				mine = fewer
			}
		}
	}
	if len(mine) != 1 {
		return nil
	}
	return &z.Nodes[mine[0]]
}

func indexes[T any](list []T, is func(T) bool) []int {
	var out []int
	for i, v := range list {
		if is(v) {
			out = append(out, i)
		}
	}
	return out
}

// first is the address that names the node; invalid for an entry that has none, which no checked file has.
func (n ZoneNode) first() netip.Addr {
	if len(n.Addrs) == 0 {
		return netip.Addr{}
	}
	return n.Addrs[0]
}

// has reports whether the node has one of the addresses.
func (n ZoneNode) has(addrs ...netip.Addr) bool {
	return slices.ContainsFunc(n.Addrs, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
}

// listensAs reports whether this process listens at the node's own address.
func (c *Config) listensAs(n ZoneNode) bool {
	for _, l := range []string{c.Listen.HTTP, c.Listen.HTTPS} {
		host, _, err := splitHostPort(l, 0)
		if a, e := netip.ParseAddr(host); err == nil && e == nil && n.has(a) && c.portMatches(n, l) {
			return true
		}
	}
	return false
}

// listensOn reports whether this process listens at the node's own port.
func (c *Config) listensOn(n ZoneNode) bool {
	return n.Port != 0 && (c.portMatches(n, c.Listen.HTTP) || c.portMatches(n, c.Listen.HTTPS))
}

func (c *Config) portMatches(n ZoneNode, listen string) bool {
	return n.Port == 0 || n.Port == portOf(listen)
}

// Peer is another node and where it is.
type Peer struct {
	Zone string
	ZoneNode
}

// Peers lists every node but this one, in the order of the file.
func (c *Config) Peers() []Peer {
	self := c.Self()
	var out []Peer
	for i := range c.Zones {
		for j := range c.Zones[i].Nodes {
			if n := &c.Zones[i].Nodes[j]; n != self {
				out = append(out, Peer{c.Zones[i].Name, *n})
			}
		}
	}
	return out
}

// Lone reports whether no other node is configured.
func (c *Config) Lone() bool { return len(c.Peers()) == 0 }

// IsHub reports whether this node is of the home Region, whose nodes hold what the fleet remembers. A lone node is.
func (c *Config) IsHub() bool { return c.Lone() || c.Home != "" && c.Node.Zone == c.Home }

// CheckPort is the port at which peers check and ask a node; 0 when it has none.
func (c *Config) CheckPort(n ZoneNode) uint16 {
	for _, port := range []uint16{n.Port, portOf(c.Listen.HTTP), portOf(c.Listen.HTTPS)} {
		if port != 0 {
			return port
		}
	}
	return 0
}

// HubAddrs are where hub nodes are dialled: fleet.hub, else the nodes of home at the port of fleet.listen.
func (c *Config) HubAddrs() []string {
	if len(c.Fleet.Hub) > 0 {
		return slices.Clone(c.Fleet.Hub)
	}
	home, port := c.Zone(c.Home), portOf(c.Fleet.Listen)
	if home == nil || port == 0 {
		return nil
	}
	var out []string
	for _, n := range home.Nodes {
		out = append(out, hostPort(n.first().String(), port))
	}
	return out
}

// Hosts lists the hosts of all sites, once each, without `*`: those that certificates are for.
func (c *Config) Hosts() []string {
	return slices.DeleteFunc(c.hosts(), func(h string) bool { return h == "*" })
}

// Name finds a steered name.
func (c *Config) Name(name string) *Name {
	return find(c.DNS.Names, func(n *Name) bool { return n.Name == name })
}

// portOf is the port of host:port, or 0.
func portOf(listen string) uint16 {
	_, port, err := splitHostPort(listen, 0)
	if err != nil {
		return 0
	}
	return port
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// isLoopback reports whether a listen host reaches this machine alone.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
