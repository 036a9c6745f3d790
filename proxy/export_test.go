package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
)

// SampleAll is what happens every ten seconds.
func (p *Proxy) SampleAll() { p.sampleAll() }

// ParseReport is parseReport without the entries.
func ParseReport(body []byte) (n int, err error) {
	entries, err := parseReport(body)
	return len(entries), err
}

// Segments is how a path is read; ok is false when it is refused.
func Segments(escaped string) (segments, other []string, ok bool) {
	p, ok := parsePath(escaped)
	return p.segments, p.other, ok
}

// Strip takes segments off a URL.
func Strip(u *url.URL, segments []string) *url.URL { return stripped(u, segments) }

// ClientOf reads X-Forwarded-For from a peer that is trusted, with others that are.
func ClientOf(h http.Header, peer netip.Addr, trusted []netip.Prefix) netip.Addr {
	t := trust{proxies: trusted}
	return t.clientOf(h, peer)
}

// Escaped is a JSON string without its quotes.
func Escaped(s string) string { return string(appendEscaped(nil, s)) }

// DropHopByHop is dropHopByHop.
func DropHopByHop(h http.Header) { dropHopByHop(h) }
