package proxy

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// hopByHop are the fields of one connection (RFC 9110 §7.6.1), named in Connection or not.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// endToEnd are fields that Connection may not name: to take them out would change what the message means, or undo
// what the edge has set.
var endToEnd = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Age": true, "Authorization": true,
	"Cache-Control": true, "Cache-Status": true, "Cdn-Cache-Control": true, "Cdn-Loop": true,
	"Content-Encoding": true, "Content-Language": true, "Content-Length": true, "Content-Location": true,
	"Content-Range": true, "Content-Type": true, "Cookie": true, "Date": true, "Etag": true, "Expect": true,
	"Expires": true, "Forwarded": true, "Host": true, "If-Match": true, "If-Modified-Since": true,
	"If-None-Match": true, "If-Range": true, "If-Unmodified-Since": true, "Last-Modified": true, "Location": true,
	"Max-Forwards": true, "Origin": true, "Pragma": true, "Range": true, "Referer": true, "Set-Cookie": true,
	"Surrogate-Control": true, "Surrogate-Key": true, "User-Agent": true, "Vary": true, "Via": true,
	"Www-Authenticate": true, "X-Forwarded-For": true, "X-Forwarded-Host": true, "X-Forwarded-Proto": true,
	"X-Request-Id": true,
}

// dropHopByHop takes out what belongs to one connection. Upgrade and `TE: trailers` are the caller's to put back.
func dropHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" && !endToEnd[name] {
				delete(h, name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// upgradeOf is the protocol a request wants to change to, empty if none. HTTP/2 by Upgrade is not offered: it would
// carry requests that nobody here has looked at. HTTP/1.0 has none (RFC 9110 §7.8).
func upgradeOf(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 || !hasToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	u := strings.TrimSpace(strings.Join(r.Header["Upgrade"], ","))
	if strings.ContainsFunc(u, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ',' }) || strings.EqualFold(u, "h2c") {
		return ""
	}
	return u
}

func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// dashed is a field's name as servers see it that fold `_` into `-` (CGI, WSGI).
func dashed(name string) string {
	if strings.IndexByte(name, '_') < 0 {
		return name
	}
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// standard reports whether a field means something to every server, in the head.
func standard(name string) bool { return endToEnd[name] || slices.Contains(hopByHop, name) }

// disguised reports whether a field with `_` in its name passes for another that we look at. No server in front of
// us has a reason to send it, so nobody is trusted with it.
func disguised(name string) bool {
	as := dashed(name)
	return as != name && (standard(as) || saysWho(as))
}

// dropClaims takes out of a request's trailers what belongs into a head: a server may merge them (RFC 9110 §6.5.1).
func dropClaims(trailer http.Header) {
	for name := range trailer {
		if as := dashed(name); standard(as) || saysWho(as) {
			delete(trailer, name)
		}
	}
}

// saysWho reports whether a field tells servers behind us who or what the request is, so that only we and trusted
// proxies may set it.
func saysWho(name string) bool {
	switch name {
	case "Forwarded", "X-Forwarded", "X-Real-Ip", "X-Host", "X-Method-Override", "X-Request-Id", "X-Client-Ip",
		"X-Cluster-Client-Ip", "True-Client-Ip", "Client-Ip", "Proxy", "Nearzone-Hop":
		return true
	}
	for _, prefix := range []string{"X-Forwarded-", "X-Original-", "X-Rewrite-", "X-Http-Method"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// prepare makes the header of a request fit to go on: hop-by-hop fields out, the client's claims out unless its
// peer is trusted, ours in.
func (x *exchange) prepare(r *http.Request) {
	h := r.Header
	trailers := hasToken(h["Te"], "trailers")
	x.upgrade = upgradeOf(r)
	dropHopByHop(h)
	if x.upgrade != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{x.upgrade}
	}
	if trailers {
		h["Te"] = []string{"trailers"} // gRPC wants it (RFC 9110 §10.1.4)
	}
	delete(h, "Host") // HTTP/2 lets it pass beside :authority; r.Host has been compared with it
	for name := range h {
		if disguised(name) || !x.trusted && saysWho(name) {
			delete(h, name)
		}
	}
	delete(h, "Nearzone-Hop")
	x.introduce(r)
}

// introduce adds what the origin is to know of the client and the way.
func (x *exchange) introduce(r *http.Request) {
	h, from := r.Header, x.conn.client
	h["X-Forwarded-For"] = []string{joined(h["X-Forwarded-For"], from.String())}
	h["X-Forwarded-Proto"] = []string{x.scheme}
	if len(h["X-Forwarded-Host"]) == 0 {
		h["X-Forwarded-Host"] = []string{r.Host}
	}
	h["Forwarded"] = []string{joined(h["Forwarded"], forwarded(from, r.Host, x.connScheme()))}
	h["X-Request-Id"] = []string{x.id}
	h["Via"] = []string{joined(h["Via"], viaOf(r.ProtoMajor, r.ProtoMinor))}
	h["Cdn-Loop"] = []string{joined(h["Cdn-Loop"], x.p.loopMember())}
}

// joined adds a member to a list field.
func joined(lines []string, member string) string {
	if len(lines) == 0 {
		return member
	}
	return strings.Join(append(slices.Clone(lines), member), ", ")
}

// forwarded is one element of Forwarded (RFC 7239 §4).
func forwarded(client netip.Addr, host, scheme string) string {
	node := client.String()
	if client.Is6() {
		node = `"[` + node + `]"`
	}
	f := "for=" + node + ";proto=" + scheme
	if host != "" {
		f += `;host="` + host + `"`
	}
	return f
}

// viaOf names us in Via (RFC 9110 §7.6.3) with the version that the message came in.
func viaOf(major, minor int) string {
	return strconv.Itoa(major) + "." + strconv.Itoa(minor) + " nearzone"
}

// tooManyHops reports whether Max-Forwards ends a request here (RFC 9110 §7.6.2), and else counts it down.
func tooManyHops(r *http.Request) bool {
	if r.Method != http.MethodOptions && r.Method != http.MethodTrace {
		return false
	}
	n, err := strconv.ParseUint(r.Header.Get("Max-Forwards"), 10, 31)
	if err != nil {
		return false
	}
	if n == 0 {
		return true
	}
	r.Header["Max-Forwards"] = []string{strconv.FormatUint(n-1, 10)}
	return false
}
