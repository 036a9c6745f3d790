package proxy

import (
	"net/http"
	"strings"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache"
)

// siteTable finds the site of a Host: the exact name, else the longest wildcard, else `*`.
type siteTable struct {
	exact map[string]*site
	wild  map[string]*site // by what follows the star, with its dot
	any   *site
}

// site is a site made ready.
type site struct {
	config.Site
	routes []*route
}

// route is a route made ready.
type route struct {
	*config.Route
	site    *site
	pattern pattern
	strip   []string // segments of Strip
	fetch   http.RoundTripper
	pass    http.Handler
}

func (p *Proxy) newSiteTable(cfg *config.Config) *siteTable {
	t := &siteTable{exact: map[string]*site{}, wild: map[string]*site{}}
	for i := range cfg.Sites {
		s := p.newSite(cfg, cfg.Sites[i])
		for _, h := range s.Hosts {
			switch {
			case h == "*":
				t.any = s
			case strings.HasPrefix(h, "*."):
				t.wild[h[1:]] = s
			default:
				t.exact[h] = s
			}
		}
	}
	return t
}

func (p *Proxy) newSite(cfg *config.Config, c config.Site) *site {
	s := &site{Site: c}
	for i := range c.Routes {
		r := &route{Route: &c.Routes[i], site: s, pattern: compile(c.Routes[i].Path)}
		if r.Strip != "" {
			r.strip = strings.Split(r.Strip[1:], "/")
		}
		up := p.newUpstream(cfg, r)
		r.fetch, r.pass = fetcher{up}, p.newPass(up)
		s.routes = append(s.routes, r)
	}
	return s
}

// find gives the site of a host name, and whether the site names it rather than takes every host.
func (t *siteTable) find(host string) (s *site, named bool) {
	if s := t.exact[host]; s != nil {
		return s, true
	}
	for i := strings.IndexByte(host, '.'); i >= 0 && i+1 < len(host); {
		if s := t.wild[host[i:]]; s != nil && i > 0 {
			return s, true
		}
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return t.any, false
}

// hostName is the name in a Host field: lower case, without port, brackets and the root's dot.
func hostName(host string) string {
	if strings.HasPrefix(host, "[") {
		if end := strings.IndexByte(host, ']'); end > 0 {
			return strings.ToLower(host[1:end])
		}
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// route is the first one that takes the path; nil when its two readings go to different ones.
func (s *site) route(p path) *route {
	r := s.first(p.segments)
	if p.other != nil && s.first(p.other) != r {
		return nil
	}
	return r
}

func (s *site) first(segments []string) *route {
	for _, r := range s.routes {
		if r.pattern.match(segments) {
			return r
		}
	}
	return nil
}

// cacheRoute is the route as the cache wants it.
func (r *route) cacheRoute(x *exchange) cache.Route {
	return cache.Route{Site: r.site.Name, Policy: r.Cache, Scheme: x.scheme, Fetch: r.fetch, Pass: r.pass, Aborted: x.finished}
}
