package config

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// everyPath is the pattern of the route that takes what no other took.
const everyPath = "/**"

func sitesShape(into *[]Site) shape {
	return named[Site]{into: into, name: nounName, fresh: defaultSite, item: func(s *Site) shape { return s.shape() }}
}

// shape reads the site's own policy into base, lays each route over a copy of it, and ends the routes with base.
func (s *Site) shape() shape {
	base := defaultRoute()
	hosts := list[string]{into: &s.Hosts, least: 1, item: func(h *string) shape { return siteHost(h) }}
	routes := list[Route]{
		into:  &s.Routes,
		fresh: func() Route { r := base; r.Path = ""; return r },
		item:  func(r *Route) shape { return r.shape() },
	}
	keys := slices.Concat(
		mapping{must("hosts", hosts, `Hostnames; "*.example.com" for one or more labels, "*" alone for every Host.`)},
		base.policy(),
		mapping{
			key("reserved", boolean(&s.Reserved), "Paths under /.nearzone/ on these hosts are ours."),
			key("upgrade", duration(&s.Upgrade, time.Second, 30*day), "Idle time of WebSocket and other upgraded connections."),
			key("routes", routes, "First match wins; a route's keys override the site's one by one."),
		},
	)
	return finished{keys, func(d *decoder, n *node) {
		d.checkRoutes(s, n.at("routes"))
		if len(s.Routes) == 0 || s.Routes[len(s.Routes)-1].Path != everyPath {
			s.Routes = append(s.Routes, base)
		}
	}}
}

// finished runs do after reading, errors or not.
type finished struct {
	shape
	do func(d *decoder, n *node)
}

func (f finished) read(d *decoder, n *node) {
	f.shape.read(d, n)
	f.do(d, n)
}

// checkRoutes finds routes that no request can reach.
func (d *decoder) checkRoutes(s *Site, n *node) {
	for i, r := range s.Routes {
		at := n.at(i)
		if r.Path == everyPath && i < len(s.Routes)-1 {
			d.report(at.at("path"), "takes every path, so that no route after it is reached: put it last")
		}
		twice := slices.IndexFunc(s.Routes[:i], func(o Route) bool { return o.Path == r.Path && r.Path != "" })
		if twice >= 0 {
			d.report(at.at("path"), "%s is the path of routes[%d] too, which takes its requests", quote(r.Path), twice)
		}
		if at.get("strip") != nil && r.Path != everyPath && !strings.HasPrefix(fixedPart(r.Path)+"/", r.Strip+"/") {
			d.report(at.at("strip"), "%s does not begin path %s: want a prefix of it", quote(r.Strip), quote(r.Path))
		}
	}
}

// fixedPart is a pattern up to its first star.
func fixedPart(pattern string) string {
	if i := strings.Index(pattern, "/*"); i >= 0 {
		return pattern[:i]
	}
	return pattern
}

func (r *Route) shape() mapping {
	path := value(&r.Path, `a pattern such as "/api/**": * one segment, ** any rest`, matching(`/.*`), parsePattern)
	return append(mapping{must("path", path, "* is one segment, ** any rest.")}, r.policy()...)
}

// policy is what sites and their routes have in common.
func (r *Route) policy() mapping {
	return mapping{
		key("origin", nounRef(&r.Origin, "the name of an origin"), "Where misses go."),
		key("strip", value(&r.Strip, "a path such as /patches", matching(`/.*`), parseStrip), "Prefix taken off the path before the origin sees it."),
		key("cache", r.Cache.union(), "The caching policy; off: everything is forwarded."),
		key("max_body", r.maxBody(), "Larger request bodies get 413; off: no limit."),
	}
}

func (r *Route) maxBody() shape {
	limit := size(&r.MaxBody)
	store := limit.store
	limit.store = func(s string) error {
		if s == "off" || s == "false" {
			r.MaxBody = 0
			return nil
		}
		return store(s)
	}
	limit.want += ", or off"
	limit.json = object{"anyOf": []object{{"enum": []any{"off", false}}, limit.json}}
	return limit
}

// parsePattern checks a route's path. Patterns are compared with decoded paths, so they are written decoded.
func parsePattern(s string) (string, error) {
	if !strings.HasPrefix(s, "/") {
		return "", errors.New("does not begin with /")
	}
	if strings.ContainsAny(s, "?#%") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("has a query, an escape or a control sign")
	}
	segments := strings.Split(s[1:], "/")
	for i, seg := range segments {
		last := i == len(segments)-1
		switch {
		case seg == "**" && !last:
			return "", errors.New("has ** before its end")
		case strings.Contains(seg, "*") && seg != "*" && seg != "**":
			return "", errors.New("has a star that is not a whole segment")
		case seg == "." || seg == ".." || seg == "" && !last:
			return "", errors.New("has an empty or dotted segment, which no cleaned path has")
		}
	}
	return s, nil
}

func parseStrip(s string) (string, error) {
	p, err := parsePattern(s)
	switch {
	case err != nil:
		return "", err
	case strings.Contains(p, "*"):
		return "", errors.New("has a star")
	case strings.HasSuffix(p, "/"):
		return "", errors.New("ends in /")
	}
	return p, nil
}

// union is the mapping, or off; on undoes the off of a site.
func (c *Cache) union() shape {
	word := scalar{"off, on, or a mapping", func(s string) error {
		switch s {
		case "off", "false":
			c.Off = true
		case "on", "true":
			c.Off = false
		default:
			return errors.New("is no policy")
		}
		return nil
	}, object{"enum": []any{"off", false, "on", true}}}
	return byKind{want: "off, on, or a mapping", scalar: word, mapping: then{c.shape(), func(*decoder, *node) { c.Off = false }}}
}

func (c *Cache) shape() mapping {
	return mapping{
		key("ttl", duration(&c.TTL, 0, 3650*day), "Lifetime of responses that state none; 0: by the origin's headers alone."),
		key("stale_while_revalidate", duration(&c.StaleWhileRevalidate, 0, 3650*day), "For responses that state none."),
		key("stale_if_error", duration(&c.StaleIfError, 0, 3650*day), "For responses that state none."),
		key("max_object", size(&c.MaxObject), "Larger bodies are not stored."),
		notYet("disk"),
	}
}

func (s *Store) shape() mapping {
	memory := size(&s.Memory).hasOr(auto)
	return mapping{
		key("memory", memory, "Budget of the memory tier; auto: a quarter of the memory limit."),
		notYet("disk"),
	}
}
