package proxy

import (
	"net/url"
	"slices"
	"strings"
)

// path is a request's path for the choice of a route. The path that is forwarded is the one that came.
type path struct {
	segments []string // split at the slashes of the raw path, each decoded
	// other is how a server may read the path that decodes before it splits, takes \ for / or joins empty
	// segments; nil when it is the same.
	other []string
}

// parsePath reads an escaped path. It refuses what changes place: dot segments in any spelling, and NUL.
func parsePath(escaped string) (p path, ok bool) {
	if !strings.HasPrefix(escaped, "/") {
		return path{}, false
	}
	p.segments = strings.Split(escaped[1:], "/")
	if strings.IndexByte(escaped, '%') >= 0 {
		for i, s := range p.segments {
			decoded, err := url.PathUnescape(s)
			if err != nil {
				return path{}, false
			}
			p.segments[i] = decoded
		}
	}
	p.other = otherReading(p.segments)
	return p, !slices.ContainsFunc(p.segments, dangerous) && !slices.ContainsFunc(p.other, dangerous)
}

// otherReading is nil when there is only one.
func otherReading(segments []string) []string {
	odd := false
	for i, s := range segments {
		if s == "" && i < len(segments)-1 || strings.ContainsAny(s, `/\`) {
			odd = true
		}
	}
	if !odd {
		return nil
	}
	joined := strings.ReplaceAll(strings.Join(segments, "/"), `\`, "/")
	all := strings.Split(joined, "/")
	last := len(all) - 1
	kept := all[:0]
	for i, s := range all {
		if s != "" || i == last {
			kept = append(kept, s)
		}
	}
	return kept
}

// dangerous finds dot segments, those with parameters included (`..;x`), and NUL.
func dangerous(segment string) bool {
	name, _, _ := strings.Cut(segment, ";")
	return name == "." || name == ".." || strings.IndexByte(segment, 0) >= 0
}

// pattern is a route's path: `*` is one segment that is not empty, a final `**` any rest, none included.
type pattern struct {
	segments []string
	rest     bool
}

func compile(s string) pattern {
	segments := strings.Split(strings.TrimPrefix(s, "/"), "/")
	last := len(segments) - 1
	if segments[last] == "**" {
		return pattern{segments[:last], true}
	}
	return pattern{segments, false}
}

func (p pattern) match(path []string) bool {
	if len(path) < len(p.segments) || !p.rest && len(path) != len(p.segments) {
		return false
	}
	for i, s := range p.segments {
		if s != path[i] && (s != "*" || path[i] == "") {
			return false
		}
	}
	return true
}

// stripped is u without the segments of a route's strip; u itself when its path does not begin with them.
func stripped(u *url.URL, strip []string) *url.URL {
	if len(strip) == 0 {
		return u
	}
	raw := u.EscapedPath()
	p, ok := parsePath(raw)
	if !ok || len(p.segments) < len(strip) || !slices.Equal(p.segments[:len(strip)], strip) {
		return u
	}
	for range strip {
		raw = raw[1:]
		if i := strings.IndexByte(raw, '/'); i >= 0 {
			raw = raw[i:]
		} else {
			raw = "/"
		}
	}
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return u
	}
	out := *u
	out.Path, out.RawPath = decoded, raw
	return &out
}
