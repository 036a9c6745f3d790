package config

import (
	"errors"
	"strings"
	"time"
)

func (s *DNS) shape() mapping {
	servers := nounRefs(&s.Servers, "the name of a zone")
	domains := list[string]{into: &s.Domains, item: func(d *string) shape { return hostname(d) }}
	steered := named[Name]{into: &s.Names, name: ownerName, fresh: func(name string) Name { return defaultName(canonical(name)) },
		item: func(n *Name) shape { return n.shape() }}
	return mapping{
		key("listen", listenAddr(&s.Listen), "UDP and TCP; off: this node answers no DNS."),
		key("domains", finished{domains, func(d *decoder, n *node) { d.domainsBroken = n.broken() }}, "Delegated to us; never an apex with mail on it."),
		key("servers", servers, "Zones whose nodes are the name servers; default: home, else every zone."),
		key("names", steered, "Steered names; site hosts under domains are names by themselves."),
		key("records", recordsShape{s}, "Static records by owner and type; @ is the domain itself."),
		notYet("dnssec"),
	}
}

func (n *Name) shape() mapping {
	return mapping{
		key("serves", n.serves(), "sites.NAME or streams.NAME; default: the site with this host."),
		key("measure", choice[Measure]{into: &n.Measure, words: []Measure{MeasureZone, MeasureToOrigin}},
			"What nearest means: client to zone, or on to the origin (default for streams and sites without cache)."),
		key("zones", nounRefs(&n.Zones, "the name of a zone"), "Zones it may use; default: all."),
		key("ttl", duration(&n.TTL, time.Second, day), "Lifetime of answers, and so the time a failover takes."),
		key("steer", steerShape(&n.Steer), "Default: routing.steer."),
		notYet("sticky"),
		notYet("explore"),
	}
}

func (n *Name) serves() scalar {
	return scalar{"sites.NAME or streams.NAME", func(s string) error {
		if site, ok := strings.CutPrefix(s, "sites."); ok {
			n.Site, n.Stream = site, ""
			return nil
		}
		if stream, ok := strings.CutPrefix(s, "streams."); ok {
			n.Site, n.Stream = "", stream
			return nil
		}
		return errors.New("serves nothing we know")
	}, matching(`(sites|streams)\..+`)}
}

func steerShape(into *Steer) shape {
	return choice[Steer]{into: into, words: []Steer{SteerMeasured, SteerDistance}, later: []Steer{"static", "shadow"}}
}

// canonical is a DNS name in lower case without the dot at its end.
func canonical(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// ownerName checks a name of the DNS, a `*.` at its front allowed.
func ownerName(name string) error {
	if !isHostname(strings.TrimPrefix(canonical(name), "*.")) {
		return errors.New(quote(name) + ` is not a name: want a host name, or "*.example.com"`)
	}
	return nil
}

func (r *Routing) shape() mapping {
	geo := list[GeoSource]{into: &r.Geo, item: func(g *GeoSource) shape { return g.shape() }}
	return mapping{
		key("geo", geo, "Where prefixes are: MMDB files, and networks with their coordinates."),
		key("build", duration(&r.Build, 100*time.Millisecond, 5*time.Minute), "How often the table is rebuilt."),
		key("explore", percent(&r.Explore), "Share of answers that measure another zone."),
		key("probe", choice[string]{into: &r.Probe, words: []string{"icmp", "off"}}, "How zones measure prefixes they see no traffic of."),
		key("steer", steerShape(&r.Steer), "measured, or by distance alone."),
	}
}

func (g *GeoSource) shape() shape {
	file := fileName(&g.File, "an MMDB file")
	keys := mapping{
		key("file", fileName(&g.File, "an MMDB file"), "MMDB file."),
		key("prefix", prefix(&g.Prefix), "A network with one place."),
		key("at", g.At.shape(), "[latitude, longitude] of the network."),
	}
	union := byKind{want: "an MMDB file, or {prefix: …, at: [lat, lon]}", scalar: file, mapping: keys}
	return then{union, func(d *decoder, n *node) {
		hasAt := n.get("at") != nil
		if (g.File != "") == g.Prefix.IsValid() || g.Prefix.IsValid() != hasAt {
			d.report(n, "has neither file alone nor prefix with at: want an MMDB file, or {prefix: …, at: [lat, lon]}")
		}
	}}
}

func (h *Health) shape() mapping {
	return mapping{
		key("every", duration(&h.Every, 100*time.Millisecond, time.Minute), "Time between checks of a node."),
		key("timeout", duration(&h.Timeout, 10*time.Millisecond, time.Minute), "When a check has failed."),
		key("rise", integer(&h.Rise, 1, 100), "Checks passed in a row until a node is up."),
		key("fall", integer(&h.Fall, 1, 100), "Checks failed in a row until a node is down."),
	}
}

func (dr *Drain) shape() mapping {
	return mapping{
		key("answers", duration(&dr.Answers, 0, day), "From the last answer that names us to the end of keep-alive; for nodes that DNS names."),
		key("http", duration(&dr.HTTP, 0, day), "For requests under way."),
		key("streams", duration(&dr.Streams, 0, 7*day), "For sessions under way."),
	}
}
