package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

// upstream is the way from a route to its origin: a RoundTripper that strips the path and cleans what comes back.
// The header of the request has been prepared.
type upstream struct {
	p     *Proxy
	route *route
	via   *viaZone // nil: direct
	last  atomic.Pointer[origin.Pool]
}

func (p *Proxy) newUpstream(cfg *config.Config, r *route) *upstream {
	return &upstream{p: p, route: r, via: p.newViaZone(cfg, r)}
}

// pool is the route's origin: as it was last when a reload has taken it out, since origins are swapped a moment
// before the edge is.
func (u *upstream) pool() *origin.Pool {
	pool := u.p.deps.Origins.Pool(u.route.Origin)
	if pool == nil {
		return u.last.Load()
	}
	if u.last.Load() != pool {
		u.last.Store(pool)
	}
	return pool
}

// RoundTrip asks the origin itself.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	pool := u.pool()
	if pool == nil {
		return nil, fmt.Errorf("origin %q is gone: %w", u.route.Origin, origin.ErrNoServer)
	}
	res, err := pool.RoundTrip(u.outgoing(r))
	if err != nil {
		return nil, err
	}
	return u.clean(r, res)
}

// outgoing is r with the path that the origin wants to see.
func (u *upstream) outgoing(r *http.Request) *http.Request {
	out := new(http.Request)
	*out = *r
	out.URL = stripped(r.URL, u.route.strip)
	return out
}

// clean takes out of an answer what belongs to the connection with the origin.
func (u *upstream) clean(r *http.Request, res *http.Response) (*http.Response, error) {
	if res.StatusCode == http.StatusSwitchingProtocols {
		if len(r.Header["Upgrade"]) == 0 {
			res.Body.Close()
			return nil, fmt.Errorf("origin %q: switched protocols although nobody asked", u.route.Origin)
		}
		if rw, ok := res.Body.(io.ReadWriteCloser); ok {
			res.Body = newTunnel(rw, u.route.site.Upgrade)
		}
		return res, nil
	}
	dropHopByHop(res.Header)
	delete(res.Header, "X-Request-Id") // the one of this request is set when it is answered
	res.Header["Via"] = []string{joined(res.Header["Via"], viaOf(res.ProtoMajor, res.ProtoMinor))}
	return res, nil
}

// fetcher is upstream for the cache: an origin with via is asked there first. It runs outside of any handler, where
// a panic would end the process.
type fetcher struct{ *upstream }

func (f fetcher) RoundTrip(r *http.Request) (res *http.Response, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			f.p.panicked(cause, "host", r.Host, "path", r.URL.Path)
			res, err = nil, fmt.Errorf("panic in a fetch: %v", cause)
		}
	}()
	if f.via != nil {
		if res := f.via.ask(f.outgoing(r)); res != nil {
			return f.clean(r, res)
		}
	}
	res, err = f.upstream.RoundTrip(r)
	if x := exchangeOf(r.Context()); x != nil && err != nil && errors.Is(err, origin.ErrNoServer) {
		x.noServer.Store(true)
	}
	return res, err
}

// newPass forwards what the cache has no part in: unbuffered, upgrades and trailers included.
func (p *Proxy) newPass(u *upstream) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      timed{u},
		FlushInterval:  -1,
		BufferPool:     &p.buffers,
		ErrorLog:       p.server.ErrorLog,
		ErrorHandler:   passFailed,
		ModifyResponse: passing,
	}
}

// passing takes notice of an answer that is about to go past the cache.
func passing(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	if x == nil {
		return nil
	}
	if x.out.Status != "" { // else the cache says it
		res.Header["Cache-Status"] = []string{joined(res.Header["Cache-Status"], x.cacheStatus())}
	}
	// A gRPC error is a lone HEADERS frame with END_STREAM (Trailers-Only); in two frames it is none.
	x.w.empty = res.ContentLength == 0 && len(res.Trailer) == 0
	return nil
}

// rewrite puts back what httputil.ReverseProxy takes out or changes: what is there now, the edge has set, and the
// query goes on as it came.
func rewrite(pr *httputil.ProxyRequest) {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := pr.In.Header[name]; ok {
			pr.Out.Header[name] = v
		}
	}
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	pr.Out.Host = pr.In.Host
	pr.Out.Trailer = pr.In.Trailer // the very map: its values come with the end of the body
}

// timed notes how long an origin took.
type timed struct{ *upstream }

func (t timed) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	res, err := t.upstream.RoundTrip(r)
	if x := exchangeOf(r.Context()); x != nil {
		x.passed.Store(int64(max(time.Since(began), 1)))
	}
	return res, err
}
