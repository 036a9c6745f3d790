package cache_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is a cache between real sockets: a client, the cache's server and an origin.
type edge struct {
	t       *testing.T
	cache   *cache.Cache
	store   *store.Store
	front   *httptest.Server
	origin  *httptest.Server
	asked   atomic.Int64
	policy  atomic.Pointer[config.Cache]
	client  *http.Client
	offset  atomic.Int64 // added to the cache's clock
	outcome chan cache.Outcome
}

type setup struct {
	origin http.HandlerFunc
	policy config.Cache
	memory int64 // default 64 MiB
	fetch  http.RoundTripper
}

func newEdge(t *testing.T, s setup) *edge {
	t.Helper()
	e := &edge{t: t, outcome: make(chan cache.Outcome, 4096)}
	e.origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		w.Header().Set("Date", time.Now().Add(time.Duration(e.offset.Load())).UTC().Format(http.TimeFormat))
		s.origin(w, r)
	}))
	t.Cleanup(e.origin.Close)
	if s.memory == 0 {
		s.memory = 64 << 20
	}
	if s.policy.MaxObject == 0 {
		s.policy.MaxObject = 16 << 20
	}
	e.policy.Store(&s.policy)
	reg := prometheus.NewRegistry()
	e.store = store.New(s.memory, reg)
	e.cache = cache.New(cache.Options{Store: e.store, Node: "nearzone", Reg: reg, Now: func() time.Time {
		return time.Now().Add(time.Duration(e.offset.Load()))
	}})
	transport := &http.Transport{DisableCompression: true}
	target, _ := url.Parse(e.origin.URL)
	if s.fetch == nil {
		s.fetch = toOrigin{target, transport}
	}
	pass := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
	e.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.outcome <- e.cache.Serve(w, r, cache.Route{Site: "play", Policy: *e.policy.Load(), Scheme: "http", Fetch: s.fetch, Pass: pass,
			Aborted: func(o cache.Outcome) { e.outcome <- o }})
	}))
	e.client = &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 300},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = e.cache.Run(ctx) }()
	t.Cleanup(func() {
		e.client.CloseIdleConnections()
		e.origin.CloseClientConnections()
		e.front.CloseClientConnections()
		e.front.Close()
		cancel()
		<-ended
		transport.CloseIdleConnections()
	})
	return e
}

// toOrigin sends every request to the origin's address, the Host kept.
type toOrigin struct {
	target *url.URL
	via    http.RoundTripper
}

func (o toOrigin) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host = o.target.Scheme, o.target.Host
	return o.via.RoundTrip(r)
}

// answer is what a client got.
type answer struct {
	*http.Response
	body string
	err  error
}

func (e *edge) request(method, path string, header ...string) *http.Request {
	e.t.Helper()
	r, err := http.NewRequest(method, e.front.URL+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func (e *edge) do(r *http.Request) answer {
	e.t.Helper()
	response, err := e.client.Do(r)
	if err != nil {
		return answer{err: err, Response: &http.Response{Header: http.Header{}}}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response, string(body), err}
}

// get asks for path with header given as name, value, name, value…
func (e *edge) get(path string, header ...string) answer {
	e.t.Helper()
	return e.do(e.request(http.MethodGet, path, header...))
}

func (e *edge) wantAsked(n int64) {
	e.t.Helper()
	if got := e.asked.Load(); got != n {
		e.t.Errorf("the origin was asked %d times, want %d", got, n)
	}
}

// later moves the cache's clock, when no fetch is under way any more.
func (e *edge) later(d time.Duration) {
	e.t.Helper()
	eventually(e.t, "fetches ended", func() bool { return e.cache.Stats().Fills == 0 })
	e.offset.Add(int64(d))
}

// status is the last member of Cache-Status, ours.
func (a answer) status() string {
	lines := a.Header["Cache-Status"]
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

func (a answer) want(t *testing.T, code int, body string, status ...string) {
	t.Helper()
	if a.err != nil {
		t.Errorf("error %v, want status %d", a.err, code)
		return
	}
	if a.StatusCode != code || a.body != body {
		t.Errorf("got %d %q, want %d %q", a.StatusCode, a.body, code, body)
	}
	for _, part := range status {
		if !strings.Contains(a.status(), part) {
			t.Errorf("Cache-Status %q, want %q in it", a.status(), part)
		}
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

var errAny = errors.New("any")

func TestMetricsAreClean(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := store.New(1<<20, reg)
	c := cache.New(cache.Options{Store: s, Reg: reg})
	w := httptest.NewRecorder()
	c.Serve(w, httptest.NewRequest("GET", "/", nil), cache.Route{Site: "play", Scheme: "http", Fetch: roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, errAny
	})})
	c.Purge(cache.Purge{Tag: "a"})
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestReasonsAreTokens(t *testing.T) {
	seen := map[cache.Reason]bool{}
	for _, r := range cache.Reasons() {
		if strings.Trim(string(r), "abcdefghijklmnopqrstuvwxyz-") != "" || r == "" || seen[r] {
			t.Errorf("reason %q", r)
		}
		seen[r] = true
	}
}
