package cache_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

// call is one request that came to the origin of a world, and what became of it.
type call struct {
	conditional    bool
	sent, received time.Time
	response       modelResponse
	notModified    bool
	failed         bool
}

// world is a cache, its origin and the model of what the cache has.
type world struct {
	t      *testing.T
	chance chance
	cache  *cache.Cache
	route  cache.Route
	stored map[string][]*entry // by URL, the one stored last first
	calls  []*call
	ids    int
	steps  []string // what was done, for when it goes wrong
}

// Random clients and a random origin, and after each request the model has the last word: whether the origin was
// asked, with a condition or without, and which response the client got, how old.
func TestCacheIsItsModel(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("NEARZONE_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, chance: chance{rand.New(rand.NewPCG(seed, 0))}, stored: map[string][]*entry{}}
		w.cache = cache.New(cache.Options{Store: store.New(16<<20, nil)})
		w.route = cache.Route{Scheme: "http", Fetch: roundTrip(w.origin), Pass: http.HandlerFunc(w.pass)}
		for n := range sized(2_000, 100_000) {
			w.step(w.chance.request())
			if t.Failed() {
				t.Fatalf("NEARZONE_TEST_SEED=%d, step %d:\n%s", seed, n, strings.Join(w.steps, "\n"))
			}
		}
	})
}

// origin answers with whatever comes to its mind, after a while.
func (w *world) origin(r *http.Request) (*http.Response, error) {
	c := &call{sent: time.Now(), conditional: r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != ""}
	w.calls = append(w.calls, c)
	time.Sleep(time.Duration(max(0, w.chance.IntN(12)-8)) * time.Second)
	c.received = time.Now()
	if w.chance.oneIn(12) {
		c.failed = true
		return nil, errAny
	}
	w.ids++
	status := 200
	if r.Method == http.MethodGet && w.chance.oneIn(4) {
		status = []int{203, 301, 302, 404, 410, 299, 500, 503}[w.chance.IntN(8)]
	}
	c.response = w.chance.response(w.ids, c.received, status)
	if r.Method == http.MethodGet && c.conditional && !w.chance.oneIn(3) {
		c.notModified = true
		c.response.etag, c.response.status = r.Header.Get("If-None-Match"), http.StatusNotModified
		if w.chance.oneIn(2) {
			c.response.etag = ""
		}
	}
	response := said(c.response.status, fmt.Sprintf("body %7d", w.ids))
	response.Header = c.response.header()
	if r.Method == http.MethodHead || c.notModified {
		response.Body = http.NoBody
		response.ContentLength = -1
	}
	response.Header.Set("Content-Length", "12")
	return response, nil
}

// pass is the origin for what the cache has no part in.
func (w *world) pass(rw http.ResponseWriter, r *http.Request) {
	status := 200
	if w.chance.oneIn(4) {
		status = 500
	}
	rw.WriteHeader(status)
}

func (w *world) note(format string, args ...any) {
	w.steps = append(w.steps[max(0, len(w.steps)-60):], fmt.Sprintf(format, args...))
}

func (w *world) step(q modelRequest) {
	time.Sleep(time.Duration(w.chance.IntN(20)) * time.Second)
	now := time.Now()
	chosen := w.choose(q)
	w.calls = nil
	r := httptest.NewRequest(q.method, "http://x.example"+q.url, nil)
	r.Header = q.header()
	got := httptest.NewRecorder()
	out := w.cache.Serve(got, r, w.route)
	for synctest.Wait(); w.cache.Stats().Fills > 0; {
		time.Sleep(time.Second)
	}
	w.note("%s %s %s %v -> %d %v %q %+v", now.Format("15:04:05"), q.method, q.url, r.Header, got.Code, got.Header(), got.Body, out)
	for _, c := range w.calls {
		w.note("  origin %s-%s conditional=%v failed=%v %d %v", c.sent.Format("15:04:05"), c.received.Format("15:04:05"), c.conditional, c.failed, c.response.status, c.response.header())
	}
	if q.method == http.MethodPost {
		if got.Code < 400 {
			delete(w.stored, q.url)
		}
		return
	}
	good := nothing
	if chosen != nil {
		good = chosen.good(q, now)
	}
	switch {
	case good == atOnce:
		w.wantCalls(0)
		w.wantStored(q, got, chosen, now)
	case good == behind:
		w.wantStored(q, got, chosen, now)
		w.refreshed(q, chosen, now)
	case q.onlyIfCached:
		w.wantCalls(0)
		w.wantCode(got, http.StatusGatewayTimeout)
	case w.wantCalls(1):
		w.fetched(q, got, chosen)
	}
}

// choose finds the stored response: the most recent that matches (RFC 9111 §4, "as determined by the Date header").
func (w *world) choose(q modelRequest) *entry {
	var best *entry
	for _, e := range w.stored[q.url] {
		if e.response.vary == "X-V" && e.v != q.v || e.unstated && q.cookie {
			continue
		}
		if best == nil || e.dated().After(best.dated()) {
			best = e
		}
	}
	return best
}

// put stores an entry in place of the one with the same selecting fields.
func (w *world) put(url string, e *entry) {
	w.stored[url] = append([]*entry{e}, slices.DeleteFunc(w.stored[url], func(old *entry) bool {
		return old.response.vary == e.response.vary && (e.response.vary == "" || old.v == e.v)
	})...)
}

func (w *world) remove(url string, e *entry) {
	w.stored[url] = slices.DeleteFunc(w.stored[url], func(old *entry) bool { return old == e })
}

// refreshed follows what happened behind the client's back.
func (w *world) refreshed(q modelRequest, chosen *entry, now time.Time) {
	if now.Before(chosen.retryAt) {
		w.wantCalls(0)
		return
	}
	if w.wantCalls(1) {
		plain := plainly(q)
		plain.credentials, plain.cookie = q.credentials, q.cookie
		w.learn(plain, chosen)
	}
}

// fetched follows what happened while the client waited.
func (w *world) fetched(q modelRequest, got *httptest.ResponseRecorder, chosen *entry) {
	c := w.calls[0]
	served := w.learn(q, chosen)
	if w.t.Failed() {
		return
	}
	failing := c.failed || c.response.status >= 500
	switch {
	case chosen != nil && failing && chosen.standsIn(c.received):
		w.wantStored(q, got, chosen, c.received)
	case c.failed && chosen != nil && chosen.neverStale():
		w.wantCode(got, http.StatusGatewayTimeout) // RFC 9111 §5.2.2.2
	case c.failed:
		w.wantCode(got, http.StatusBadGateway)
	case c.notModified:
		w.wantStored(q, got, served, c.received)
	default:
		w.wantCode(got, c.response.status)
		w.wantHeader(got, "X-Id", fmt.Sprint(c.response.id))
		w.wantBody(q, got, c.response.id)
	}
}

// learn changes the model's store by what the origin said, and gives the entry a 304 made.
func (w *world) learn(q modelRequest, chosen *entry) *entry {
	c := w.calls[0]
	validates := chosen != nil && (chosen.response.etag != "" || !chosen.response.modified.IsZero())
	if q.method == http.MethodGet && c.conditional != validates {
		w.t.Errorf("conditional request: %v, want %v", c.conditional, validates)
		return nil
	}
	switch {
	case c.failed || q.method == http.MethodGet && c.response.status >= 500 && chosen != nil && chosen.standsIn(c.received):
		if chosen != nil && chosen.standsIn(c.received) {
			chosen.retryAt = c.received.Add(time.Second)
		}
	case q.method == http.MethodHead:
		w.learnHead(q, chosen, c)
	case c.notModified:
		r := freshened(chosen.response, c.response)
		w.remove(q.url, chosen)
		e := store9111(r, chosen.body, q, c.sent, c.received)
		if e == nil {
			return &entry{response: r, body: chosen.body, sent: c.sent, received: c.received}
		}
		w.put(q.url, e)
		return e
	default:
		if e := store9111(c.response, c.response.id, q, c.sent, c.received); e != nil {
			w.put(q.url, e)
		} else if plain := plainly(q); chosen != nil && c.response.status < 500 && store9111(c.response, c.response.id, plain, c.sent, c.received) == nil {
			w.remove(q.url, chosen) // our choice: what is not to be stored any more is not to be served any more
		}
	}
	return nil
}

// plainly is the request of a client that asks for nothing special.
func plainly(q modelRequest) modelRequest {
	return modelRequest{method: http.MethodGet, url: q.url, v: q.v, maxAge: never, minFresh: never, maxStale: never}
}

// learnHead is RFC 9111 §4.3.5.
func (w *world) learnHead(q modelRequest, chosen *entry, c *call) {
	if chosen == nil || c.response.status != 200 {
		return
	}
	old := chosen.response
	if c.response.etag != "" && old.etag != "" && c.response.etag != old.etag ||
		!c.response.modified.IsZero() && !old.modified.IsZero() && !c.response.modified.Equal(old.modified) {
		w.remove(q.url, chosen)
		return
	}
	q.method = http.MethodGet
	if e := store9111(freshened(old, c.response), chosen.body, q, c.sent, c.received); e != nil {
		w.remove(q.url, chosen)
		w.put(q.url, e)
	}
}

func (w *world) wantCalls(n int) bool {
	if len(w.calls) != n {
		w.t.Errorf("the origin was asked %d times, want %d", len(w.calls), n)
	}
	return len(w.calls) == n
}

func (w *world) wantStored(q modelRequest, got *httptest.ResponseRecorder, e *entry, now time.Time) {
	w.wantCode(got, e.response.status)
	w.wantHeader(got, "X-Id", fmt.Sprint(e.response.id))
	w.wantHeader(got, "Age", fmt.Sprint(int(e.age(now)/time.Second)))
	w.wantHeader(got, "Date", e.dated().UTC().Format(http.TimeFormat))
	w.wantBody(q, got, e.body)
}

func (w *world) wantCode(got *httptest.ResponseRecorder, code int) {
	if got.Code != code {
		w.t.Errorf("status %d, want %d", got.Code, code)
	}
}

func (w *world) wantHeader(got *httptest.ResponseRecorder, name, want string) {
	if v := got.Header().Get(name); v != want {
		w.t.Errorf("%s %q, want %q", name, v, want)
	}
}

func (w *world) wantBody(q modelRequest, got *httptest.ResponseRecorder, id int) {
	want := fmt.Sprintf("body %7d", id)
	if q.method == http.MethodHead {
		want = ""
	}
	if got.Body.String() != want {
		w.t.Errorf("body %q, want %q", got.Body, want)
	}
}
