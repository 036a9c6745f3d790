package cache

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/nearzone/nearzone/config"
)

// View is all the cache reads of a request: the route, the key and the freshness rules are computed from it
// and from nothing else, whoever parsed the request.
type View struct {
	Method string
	Scheme string // http or https, as the client used it
	Host   string // as the client sent it, port included
	Path   string // still escaped
	Query  string // raw, with its question mark; empty when there is none
	Header http.Header

	ask requestControl
}

// NewView reads r, which came in over scheme.
func NewView(r *http.Request, scheme string) View {
	v := View{Method: r.Method, Scheme: scheme, Host: r.Host, Path: r.URL.EscapedPath(), Header: r.Header}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		v.Query = "?" + r.URL.RawQuery
	}
	v.ask = parseRequestControl(r.Header["Cache-Control"])
	return v
}

// AppendKey appends the primary key: scheme, lower-case host, path and query as they are. It is the only key
// there is. The method is not in it because only GET is stored.
func (v *View) AppendKey(dst []byte) []byte {
	dst = append(append(dst, v.Scheme...), "://"...)
	for i := range len(v.Host) {
		c := v.Host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return append(append(dst, v.Path...), v.Query...)
}

// bypass tells why the cache has nothing to say to this request; empty: it has.
func (v *View) bypass(r *http.Request, policy config.Cache) Reason {
	switch {
	case v.Method != http.MethodGet && v.Method != http.MethodHead || overridden(v.Header):
		return Method
	case policy.Off:
		return Off
	case len(v.Header["Upgrade"]) > 0 && httpguts.HeaderValuesContainsToken(v.Header["Connection"], "upgrade"):
		return Upgrade
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return RequestBody // a body the key does not know must not choose what others get
	case len(v.Header["If-Match"]) > 0 || len(v.Header["If-Unmodified-Since"]) > 0:
		return Precondition // RFC 9111 §4.3.2: not applicable to a cache
	}
	return ""
}

// overridden reports whether the request asks frameworks to take it for another method: the answer is then none
// to a GET, and must not become what others get for theirs.
func overridden(h http.Header) bool {
	return len(h["X-Http-Method-Override"])+len(h["X-Http-Method"])+len(h["X-Method-Override"]) > 0
}

// unsafe reports whether a method may have changed what its URL is (RFC 9110 §9.2.1, RFC 9111 §4.4). An
// unknown method may.
func unsafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "PROPFIND", "REPORT", "SEARCH", "QUERY":
		return false
	}
	return true
}

func hasCookie(h http.Header) bool { return len(h["Cookie"]) > 0 }

// only is the first line of a field, trimmed.
func only(h http.Header, name string) string {
	if lines := h[name]; len(lines) > 0 {
		return strings.TrimSpace(lines[0])
	}
	return ""
}
