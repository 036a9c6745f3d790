package proxy

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/lane"
	"github.com/nearzone/nearzone/proxy/origin"
)

// exchange is one request and its answer.
type exchange struct {
	p     *Proxy
	st    *state
	conn  *conn
	w     *writer
	began time.Time

	id      string
	client  netip.Addr // what the log calls the client: by X-Forwarded-For if the peer is trusted
	trusted bool
	scheme  string // the client's, as told by a trusted peer
	upgrade string // the protocol that is asked for
	host    string // name in Host
	site    *site  // nil before it is found
	route   *route
	upload  *upload // nil without a body

	out      cache.Outcome
	noServer atomic.Bool  // its fetch found no server up
	passed   atomic.Int64 // nanoseconds from request to head of what was forwarded past the cache
}

type exchangeKey struct{}

// exchangeOf finds the exchange that a request to an origin is made for; nil for none.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// serve is the handler of every request.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	defer p.requests.Add(-1)
	x := p.begin(w, r)
	defer x.end(r)
	ctx := origin.WithClient(r.Context(), x.client)
	x.handle(r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
}

func (p *Proxy) begin(w http.ResponseWriter, r *http.Request) *exchange {
	c, _ := r.Context().Value(connKey{}).(*conn)
	x := &exchange{p: p, st: p.state.Load(), conn: c, began: time.Now()}
	c.fresh.Store(false)
	x.w = newWriter(x, w, r)
	x.distrust(r)
	x.client, x.scheme, x.host = c.client, x.connScheme(), hostName(r.Host)
	if x.trusted = x.st.trust.isProxy(c.client) || x.st.trust.hop.signed(r, x.began); x.trusted {
		x.client = x.st.trust.clientOf(r.Header, c.client)
		x.scheme = schemeOf(r.Header, x.scheme)
		x.id = keepID(r.Header.Get("X-Request-Id"))
	}
	if x.id == "" {
		x.id = rand.Text()
	}
	return x
}

func (x *exchange) connScheme() string {
	if x.conn.secure {
		return "https"
	}
	return "http"
}

// keepID is a trusted proxy's request ID, if it can stand in a log and a header.
func keepID(id string) string {
	if len(id) > 128 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' }) {
		return ""
	}
	return id
}

// end isolates a panic and writes the books.
func (x *exchange) end(r *http.Request) {
	cause := recover()
	abort := cause == http.ErrAbortHandler
	if cause != nil && !abort {
		x.p.panicked(cause, "request", x.id, "host", r.Host, "path", r.URL.Path)
		if abort = x.w.begun(); !abort {
			x.fail(http.StatusInternalServerError, "something went wrong here")
		}
	}
	x.upload.leave(r)
	x.w.finish()
	x.p.metrics.observe(x)
	x.p.access.write(x, r)
	if abort {
		panic(http.ErrAbortHandler) // half an answer: cut it off, so that nobody takes it for whole
	}
}

// panicked notes a panic that has been recovered from.
func (p *Proxy) panicked(cause any, of ...any) {
	p.metrics.panics.Inc()
	p.log.Error("panic", append(of, "err", fmt.Sprint(cause), "stack", string(debug.Stack()))...)
}

// finished takes the outcome of an answer that is about to be cut off.
func (x *exchange) finished(out cache.Outcome) { x.out = out }

// handle finds out what a request is for.
func (x *exchange) handle(r *http.Request) {
	if why := x.refusal(r); why != refusedNone {
		x.refuse(why)
		return
	}
	if r.URL.Path == "" { // http://host in absolute form (RFC 9112 §3.2.1)
		u := *r.URL
		u.Path = "/"
		r.URL = &u
	}
	site, named := x.st.sites.find(x.host)
	x.site = site
	if r.URL.Path == "*" {
		x.options(r)
		return
	}
	p, ok := parsePath(r.URL.EscapedPath())
	switch {
	case !ok:
		x.refuse(refusedPath)
	case reserved(p) && x.ours(p, named):
		x.reserved(p, r)
	case site == nil:
		x.refuse(refusedHost)
	default:
		x.forward(p, r)
	}
}

// refusal is what is wrong with a request whatever site it is for.
func (x *exchange) refusal(r *http.Request) refusal {
	switch {
	case r.Method == http.MethodConnect:
		return refusedConnect
	case r.Host == "" && r.ProtoAtLeast(1, 1), r.Host != "" && !lane.ValidHost(r.Host):
		return refusedBadHost
	case r.ProtoMajor == 2 && !sameHost(r): // RFC 9113 §8.3.1
		return refusedBadHost
	case r.ProtoMajor == 2 && !lane.ValidRequest(r.Method, r.RequestURI): // of HTTP/1, the gate has seen to that
		return refusedTarget
	}
	return refusedNone
}

// sameHost compares a Host field that came beside :authority.
func sameHost(r *http.Request) bool {
	for _, h := range r.Header["Host"] {
		if !strings.EqualFold(h, r.Host) {
			return false
		}
	}
	return true
}

// options answers `OPTIONS *`, which asks about the server and not about a resource.
func (x *exchange) options(r *http.Request) {
	if x.site == nil {
		x.refuse(refusedHost)
		return
	}
	x.w.Header().Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusOK)
}

// forward answers from the cache or the origin.
func (x *exchange) forward(p path, r *http.Request) {
	if x.route = x.site.route(p); x.route == nil {
		x.refuse(refusedPath)
		return
	}
	switch {
	case x.p.requests.Load() > int64(x.p.limits.Requests):
		x.refuse(refusedBusy)
		return
	case x.p.loops(r.Header):
		x.refuse(refusedLoop)
		return
	case tooManyHops(r):
		x.w.Header().Set("Content-Length", "0")
		x.w.WriteHeader(http.StatusOK)
		return
	case x.route.MaxBody > 0 && r.ContentLength > int64(x.route.MaxBody):
		x.refuse(refusedBody)
		return
	}
	x.prepare(r)
	x.watchUpload(r, int64(x.route.MaxBody))
	if x.upgrade == "" && !x.route.Cache.Off {
		x.w.cached = true
		x.out = x.p.deps.Cache.Serve(x.w, r, x.route.cacheRoute(x))
		return
	}
	x.out = cache.Outcome{Status: "bypass", Reason: cache.Off}
	if x.upgrade != "" {
		x.out.Reason = cache.Upgrade
	}
	x.route.pass.ServeHTTP(x.w, r)
}

// refusal is why a request is answered here and goes no further.
type refusal uint8

const (
	refusedNone refusal = iota
	refusedConnect
	refusedBadHost
	refusedTarget
	refusedHost
	refusedPath
	refusedLoop
	refusedBody
	refusedBeacon
	refusedBusy
	refusals
)

var refusalTexts = [refusals]struct {
	label  string
	status int
	text   string
}{
	refusedNone:    {"none", 0, ""},
	refusedConnect: {"connect", http.StatusBadRequest, "this server opens no tunnels"},
	refusedBadHost: {"host", http.StatusBadRequest, "malformed Host"},
	refusedTarget:  {"target", http.StatusBadRequest, "malformed method or request target"},
	refusedHost:    {"unknown_host", http.StatusMisdirectedRequest, "this server does not serve this host"},
	refusedPath:    {"path", http.StatusBadRequest, "path has dot segments, or can be read in two ways"},
	refusedLoop:    {"loop", http.StatusLoopDetected, "this request has been here before (CDN-Loop)"},
	refusedBody:    {"body_too_large", http.StatusRequestEntityTooLarge, "request body is too large"},
	refusedBeacon:  {"beacon_rate", http.StatusTooManyRequests, "too many reports"},
	refusedBusy:    {"busy", http.StatusServiceUnavailable, "too many requests are under way here"},
}

func (r refusal) String() string { return refusalTexts[r].label }

func (x *exchange) refuse(why refusal) {
	x.p.metrics.refused[why].Inc()
	if x.out.Reason == "" {
		x.out.Reason = cache.Reason(why.String())
	}
	x.fail(refusalTexts[why].status, refusalTexts[why].text)
}
