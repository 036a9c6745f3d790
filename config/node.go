package config

import (
	"errors"
	"net/netip"
	"strings"
)

func (c *Config) shape() mapping {
	return mapping{
		key("node", c.Node.shape(), "Who this process is; each part finds itself when left out."),
		key("home", nounRef(&c.Home, "the name of a zone"), "The Region whose nodes are the hub; default: the first zone that is a Region."),
		key("zones", zonesShape(&c.Zones), "Local Zones and Regions' edges, and their nodes."),
		key("listen", c.Listen.shape(), "Where HTTP is served."),
		key("origins", originsShape(&c.Origins), "The servers that hold the truth for sites and streams."),
		key("sites", sitesShape(&c.Sites), "Hostnames, with their routes and policies."),
		key("streams", streamsShape(&c.Streams), "TCP and UDP listeners relayed to game servers."),
		notYet("ping"),
		key("store", c.Store.shape(), "Where cached objects live."),
		key("dns", c.DNS.shape(), "The authoritative DNS server."),
		key("routing", c.Routing.shape(), "How measurements become answers."),
		key("health", c.Health.shape(), "How nodes check each other."),
		key("drain", c.Drain.shape(), "How long leaving takes at most."),
		key("tls", c.TLS.shape(), "Where certificates come from."),
		key("fleet", c.Fleet.shape(), "What nodes tell each other."),
		notYet("aws"),
		key("admin", c.Admin.shape(), "The operator's door."),
		key("log", c.Log.shape(), "What is written where."),
	}
}

func (n *Node) shape() mapping {
	return mapping{
		key("zone", value(&n.Zone, "auto or the name of a zone", object{"type": "string"}, parseZone), "The zone this node is in; auto: NEARZONE_ZONE, else EC2 metadata."),
		key("name", value(&n.Name, "auto or a host name", object{"type": "string"}, parseHostname), "For people, in logs, status and answers; auto: the node's address in zones, else the host name."),
		key("address", n.addressShape(), "What DNS answers name for this node; auto: its entry in zones, else EC2 metadata."),
		key("data", text(&n.Data, "a directory"), "Directory for what must outlive the process."),
	}
}

func (n *Node) addressShape() shape {
	one := value(&n.Address, "an address", matching(addrPattern), func(s string) ([]netip.Addr, error) {
		a, err := parseAddr(s)
		return []netip.Addr{a}, err
	}).hasOr(auto)
	return byKind{want: "auto, an address, or [IPv4, IPv6]", scalar: one, list: addrPair(&n.Address)}
}

// addrPair is one address of each family.
func addrPair(into *[]netip.Addr) shape {
	pair := list[netip.Addr]{into: into, least: 1, item: func(a *netip.Addr) shape { return address(a) }}
	return then{pair, func(d *decoder, n *node) {
		got := *into
		if len(got) > 2 || len(got) == 2 && got[0].Is4() == got[1].Is4() {
			d.report(n, "has more than one address of a family: want [IPv4, IPv6], one entry a node")
		}
	}}
}

func parseZone(s string) (string, error) {
	if s != auto && zoneName(s) != nil {
		return "", errors.New("is not the name of a zone")
	}
	return s, nil
}

// nounRef is a name of something else in the file. Whether that exists is checked once all is read.
func nounRef(into *string, want string) scalar {
	return value(into, want, object{"type": "string"}, func(s string) (string, error) {
		if strings.TrimSpace(s) == "" {
			return "", errors.New("is empty")
		}
		return s, nil
	})
}

// nounRefs is a list of them.
func nounRefs(into *[]string, want string) shape {
	return list[string]{into: into, least: 1, item: func(s *string) shape { return nounRef(s, want) }}
}

// parseRegion checks the name of a Region.
func parseRegion(s string) (string, error) {
	if !IsRegion(s) {
		return "", errors.New("is not the name of a Region")
	}
	return s, nil
}
