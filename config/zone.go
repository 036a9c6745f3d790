package config

import (
	"errors"
	"net/netip"
)

func zonesShape(into *[]Zone) shape {
	return named[Zone]{into: into, name: zoneName, fresh: defaultZone, item: func(z *Zone) shape { return z.shape() }}
}

func (z *Zone) shape() mapping {
	nodes := list[ZoneNode]{into: &z.Nodes, item: func(n *ZoneNode) shape { return n.shape() }}
	modes := choice[Mode]{into: &z.Mode, words: []Mode{ModeServe, ModeShadow, ModeDrain}}
	return mapping{
		key("nodes", nodes, "One entry a node: an address, [IPv4, IPv6], or address:port."),
		key("mode", modes, "serve: named in answers; shadow: serves and measures, named in no answer; drain: leaves the answers."),
		key("capacity", z.Capacity.shape(), "Of the zone as a whole."),
		key("coordinates", coordinates(&z.Coordinates), "[latitude, longitude]; only for zones the catalogue does not know."),
		key("parent", value(&z.Parent, "the name of a Region", object{"type": "string"}, parseRegion), "Parent Region; only for zones the catalogue does not know."),
		key("set", overlayShape{}, "Keys of this file that are different in this zone; null takes a key away."),
	}
}

func (n *ZoneNode) shape() shape {
	one := value(n, "an address such as 203.0.113.10, or address:port", object{"type": "string"}, parseZoneNode)
	return byKind{want: "an address, [IPv4, IPv6], or address:port", scalar: one, list: addrPair(&n.Addrs)}
}

func parseZoneNode(s string) (ZoneNode, error) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		if a.Port() == 0 {
			return ZoneNode{}, errors.New("has port 0")
		}
		s, err := parseAddr(a.Addr().String())
		return ZoneNode{Addrs: []netip.Addr{s}, Port: a.Port()}, err
	}
	a, err := parseAddr(s)
	return ZoneNode{Addrs: []netip.Addr{a}}, err
}

func (c *Capacity) shape() mapping {
	return mapping{
		key("bandwidth", rate(&c.Bandwidth), "What the zone can send."),
		key("sessions", integer(&c.Sessions, 1, 1<<30), "Stream sessions the zone can hold."),
	}
}

// coordinates is where a zone is.
func coordinates(into **LatLon) shape {
	at := &LatLon{}
	return then{at.shape(), func(*decoder, *node) { *into = at }}
}

// shape is a pair of degrees.
func (l *LatLon) shape() shape {
	var pair []float64
	degrees := list[float64]{into: &pair, least: 2, item: func(f *float64) shape { return number(f) }}
	return then{degrees, func(d *decoder, n *node) {
		if len(pair) != 2 || pair[0] < -90 || pair[0] > 90 || pair[1] < -180 || pair[1] > 180 {
			d.report(n, "is no place: want [latitude, longitude] in degrees, such as [34.05, -118.24]")
			return
		}
		*l = LatLon{pair[0], pair[1]}
	}}
}

// overlayShape is zones.ZONE.set. Its keys are checked by reading the whole file with it laid over.
type overlayShape struct{}

func (overlayShape) read(d *decoder, n *node) {
	if n.kind != kindMapping && n.kind != kindNull {
		d.report(n, "%s is not a mapping: want keys of this file that are different in this zone", n.describe())
		return
	}
	for _, path := range [][]any{{"zones"}, {"home"}, {"node", "zone"}} {
		if at := n.at(path...); at != n && at.key == path[len(path)-1] {
			d.report(at, "cannot differ between zones: every node must agree on it")
		}
	}
}

func (overlayShape) schema() object { return object{"$ref": "#/definitions/overlay"} }
