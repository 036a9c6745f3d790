package localzone

import (
	"fmt"
	"net/netip"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

// Zones joins the configured zones with the catalogue: where each lies, its parent and what answers may name in it.
// Coordinates and parent of the file count before the catalogue's. The warnings are sentences for an operator about
// what will not work as it probably was meant; none of them stops a start.
func Zones(cfg *config.Config) (zones []routing.Zone, warnings []string) {
	for _, z := range cfg.Zones {
		entry, known := Lookup(z.Name)
		zones = append(zones, join(z, entry, known))
		warnings = append(warnings, check(z, entry, known)...)
	}
	return zones, warnings
}

func join(z config.Zone, entry Entry, known bool) routing.Zone {
	out := routing.Zone{
		Name:    z.Name,
		Region:  isRegion(z.Name),
		Parent:  z.Parent,
		At:      entry.At,
		Located: known,
		Mode:    z.Mode,
	}
	if out.Parent == "" {
		out.Parent, _ = RegionOf(z.Name)
	}
	if z.Coordinates != nil {
		out.At, out.Located = *z.Coordinates, true
	}
	for _, n := range z.Nodes {
		out.Nodes = append(out.Nodes, node(z.Name, n))
	}
	return out
}

func node(zone string, n config.ZoneNode) routing.Node {
	out := routing.Node{ID: n.ID(), Zone: zone}
	for _, a := range n.Addrs {
		if a.Unmap().Is4() {
			out.V4 = a.Unmap()
		} else {
			out.V6 = a
		}
	}
	return out
}

func check(z config.Zone, entry Entry, known bool) []string {
	var out []string
	say := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("zones.%s: ", z.Name)+fmt.Sprintf(format, args...))
	}
	region := ZoneOf(z.Name)
	switch {
	case region != z.Name:
		say("an Availability Zone; nodes in it take part as the zone of its Region, so name the zone %s", region)
	case !known && z.Coordinates == nil:
		say("not in the catalogue of Local Zones and Regions; without coordinates it is steered to by measurements alone (add `coordinates: [lat, lon]`, or see `nearzone zones` for the names)")
	case entry.Status == SupportOnly:
		say("opened by AWS on request only; new accounts may not get it")
	}
	if known && !entry.IPv6 && hasIPv6(z.Nodes) {
		say("AWS lists no IPv6 in this zone, yet a node has an IPv6 address")
	}
	return out
}

func hasIPv6(nodes []config.ZoneNode) bool {
	for _, n := range nodes {
		for _, a := range n.Addrs {
			if public6(a) {
				return true
			}
		}
	}
	return false
}

// public6 leaves out loopback and private addresses, which say nothing of what AWS offers.
func public6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && a.IsGlobalUnicast() && !a.IsPrivate()
}
