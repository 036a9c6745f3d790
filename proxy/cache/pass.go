package cache

import (
	"net/http"
	"net/url"
	"strings"
)

// pass forwards what the cache has nothing to say to, and forgets what an unsafe method may have changed.
func (x *exchange) pass(why Reason) {
	x.out.Status, x.out.Reason = statusBypass, why
	w := &watched{ResponseWriter: x.w, x: x}
	x.route.Pass.ServeHTTP(w, x.r)
	if !w.begun {
		x.out.Code = http.StatusOK // what net/http will say
	}
}

// watched sees the head of an answer that Pass writes. Flush, Hijack and deadlines reach the real writer by
// Unwrap.
type watched struct {
	http.ResponseWriter
	x     *exchange
	begun bool
}

// Unwrap is for http.ResponseController.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader adds Cache-Status, and invalidates before the client can know that its change was made: its next
// GET must see it.
func (w *watched) WriteHeader(code int) {
	if code >= 200 && !w.begun {
		w.begun = true
		w.x.out.Code = code
		if unsafe(w.x.view.Method) && code < 400 {
			w.x.c.invalidate(&w.x.view, w.Header())
		}
		w.x.addStatus(cacheStatus{fwd: w.x.out.Reason.forward(), detail: w.x.out.Reason})
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *watched) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.x.out.Bytes += int64(n)
	return n, err
}

// invalidate forgets the URL of an unsafe request that succeeded, and those its response points to on the same
// host (RFC 9111 §4.4). The scheme does not matter: it is one resource.
func (c *Cache) invalidate(v *View, response http.Header) {
	urls := map[string]View{v.Path + v.Query: *v}
	for _, name := range []string{"Location", "Content-Location"} {
		if target, ok := sameHost(v, only(response, name)); ok {
			urls[target.Path+target.Query] = target
		}
	}
	for _, target := range urls {
		for _, scheme := range []string{"http", "https"} {
			target.Scheme = scheme
			key := string(target.AppendKey(nil))
			c.fills.doom(key)
			c.store.RemoveKey(key)
		}
	}
}

// sameHost resolves a reference against v's URL; false: it leads elsewhere, or nowhere.
func sameHost(v *View, ref string) (View, bool) {
	if ref == "" {
		return View{}, false
	}
	base, err := url.Parse(v.Scheme + "://" + v.Host + v.Path)
	if err != nil {
		return View{}, false
	}
	u, err := base.Parse(ref)
	if err != nil || !strings.EqualFold(u.Host, v.Host) {
		return View{}, false
	}
	target := View{Scheme: v.Scheme, Host: v.Host, Path: u.EscapedPath()}
	if u.RawQuery != "" || u.ForceQuery {
		target.Query = "?" + u.RawQuery
	}
	return target, true
}
