package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy"
)

func TestMissThenHit(t *testing.T) {
	var asked atomic.Int32
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "hello "+r.Host)
	})
	e := start(t, app(t, o.URL))
	for i, want := range []string{"fwd=uri-miss", "; hit"} {
		res, body := e.do(e.client(), e.request("GET", "/a?b=c", ""))
		if body != "hello play.example.com" || !strings.Contains(res.Header.Get("Cache-Status"), want) {
			t.Errorf("request %d: %q, Cache-Status %q, want %s", i, body, res.Header.Get("Cache-Status"), want)
		}
		if res.Header.Get("X-Request-Id") == "" || !strings.Contains(res.Header.Get("Via"), "1.1 nearzone") {
			t.Errorf("request %d: X-Request-Id %q, Via %q", i, res.Header.Get("X-Request-Id"), res.Header.Get("Via"))
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the origin was asked %d times, want once", asked.Load())
	}
}

// What the origin left unsaid stays unsaid: net/http would guess a Content-Type from the body, which makes HTML of text
// that carries a tag and defeats X-Content-Type-Options.
func TestNoContentTypeIsInvented(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		if r.URL.Path == "/stored" {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		io.WriteString(w, "<html><script>alert(1)</script>")
	})
	e := start(t, app(t, o.URL))
	for _, path := range []string{"/stored", "/stored", "/unstored", "/api/passed"} {
		res, _ := e.do(e.client(), e.request("GET", path, ""))
		if got, there := res.Header["Content-Type"]; there {
			t.Errorf("%s: Content-Type %q (Cache-Status %s), want none as the origin sent none", path, got, res.Header.Get("Cache-Status"))
		}
	}
}

func TestHosts(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
	cfg := app(t, o.URL)
	cfg.Sites = append(cfg.Sites, config.Site{
		Name: "long", Hosts: []string{"*.eu.play.example.com"}, Reserved: true,
		Routes: []config.Route{{Path: "/**", Origin: "app", Strip: "/long", Cache: config.Cache{Off: true}}},
	})
	e := start(t, cfg)
	for _, tc := range []struct {
		host string
		code int
		body string // empty: any
	}{
		{"play.example.com", 200, "/long/x"},
		{"PLAY.Example.COM:8080", 200, "/long/x"},
		{"play.example.com.", 200, "/long/x"},
		{"a.play.example.com", 200, "/long/x"},
		{"a.b.play.example.com", 200, "/long/x"},
		{"a.eu.play.example.com", 200, "/x"}, // the longer wildcard
		{"eu.play.example.com", 200, "/long/x"},
		{"example.com", 421, ""},
		{"xplay.example.com", 421, ""},
		{".play.example.com", 421, ""},
		{"127.0.0.1", 421, ""},
		{"[::1]:80", 421, ""},
	} {
		res, body := e.do(e.client(), e.request("GET", "/long/x", "", "Host", tc.host))
		if res.StatusCode != tc.code || tc.body != "" && body != tc.body {
			t.Errorf("Host %s: %d %q, want %d %q", tc.host, res.StatusCode, body, tc.code, tc.body)
		}
	}
	if got := e.metric("nearzone_proxy_refused_requests_total{reason=unknown_host}"); got != 5 {
		t.Errorf("refused{unknown_host} = %v, want 5", got)
	}
}

func TestEveryHost(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Sites[0].Hosts = []string{"*"}
	e := start(t, cfg)
	if s := e.ask(e.client(), e.request("GET", "/x", "", "Host", "anything.test:81")); s.Host != "anything.test:81" {
		t.Errorf("origin saw Host %q", s.Host)
	}
	if got := e.raw("GET /x HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 200") {
		t.Errorf("HTTP/1.0 without Host: %q", got)
	}
}

func TestPaths(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	cfg := app(t, o.URL)
	cfg.Sites[0].Routes = []config.Route{
		{Path: "/api/**", Origin: "app", Cache: config.Cache{Off: true}},
		{Path: "/patches/**", Origin: "app", Strip: "/patches", Cache: config.Cache{TTL: time.Hour}},
		{Path: "/*/one", Origin: "app", Strip: "/*", Cache: config.Cache{Off: true}},
		{Path: "/**", Origin: "app"},
	}
	cfg.Sites[0].Routes[2].Strip = ""
	e := start(t, cfg)
	for _, tc := range []struct {
		target string
		code   int
		sees   string // what the origin sees
		detail string // of Cache-Status, tells the route
	}{
		{"/", 200, "/", ""},
		{"/?a=1;b=%zz&c", 200, "/?a=1;b=%zz&c", ""}, // the query goes on as it came
		{"/api/x", 200, "/api/x", "off"},
		{"/api", 200, "/api", "off"},
		{"/apis", 200, "/apis", ""},
		{"/%61pi/x", 200, "/%61pi/x", "off"},
		{"/API/x", 200, "/API/x", ""},
		{"/x/one", 200, "/x/one", "off"},
		{"/x/y/one", 200, "/x/y/one", ""},
		{"/patches/a%2Fb", 200, "/a%2Fb", ""},
		{"/patches", 200, "/", ""},
		{"/patches/", 200, "/", ""},
		{"/p%61tches/x?y", 200, "/x?y", ""},
		{"/patchesx", 200, "/patchesx", ""},
		{"/ok%20here/%C3%BC", 200, "/ok%20here/%C3%BC", ""},
		{"/a//b", 200, "/a//b", ""},
		{"/a%2Fb", 200, "/a%2Fb", ""},
		{"//api/x", 400, "", ""}, // some servers join empty segments
		{"/api%2Fx", 400, "", ""},
		{"/api%5Cx", 400, "", ""},
		{`/api\x`, 400, "", ""},
		{"/x/../api/y", 400, "", ""},
		{"/x/%2e%2e/api/y", 400, "", ""},
		{"/x/.%2E/api/y", 400, "", ""},
		{"/x%2F..%2Fapi/y", 400, "", ""},
		{"/x/..;a=b/api/y", 400, "", ""},
		{"/./api", 400, "", ""},
		{"/patches/../secret", 400, "", ""},
		{"/x%00", 400, "", ""},
		{"/...", 200, "/...", ""},
		{"/.well-known/x", 200, "/.well-known/x", ""},
	} {
		c := e.dial()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: play.example.com\r\nConnection: close\r\n\r\n", tc.target)
		all, _ := io.ReadAll(c)
		head, body, _ := strings.Cut(string(all), "\r\n\r\n")
		if !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.1 %d", tc.code)) || tc.code == 200 && body != tc.sees {
			t.Errorf("%s: %.40q, origin saw %q; want %d, %q", tc.target, head, body, tc.code, tc.sees)
		}
		if tc.detail != "" && !strings.Contains(head, "detail="+tc.detail) {
			t.Errorf("%s took another route: %q", tc.target, head)
		}
		if tc.code == 200 && tc.detail == "" && strings.Contains(head, "detail=off") {
			t.Errorf("%s took another route: %q", tc.target, head)
		}
	}
}

func TestOwnErrors(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL))
	res, body := e.do(e.client(), e.request("GET", "/", "", "Host", "other.example"))
	if id := res.Header.Get("X-Request-Id"); res.StatusCode != 421 || id == "" || !strings.Contains(body, id) {
		t.Errorf("%d, body %q, X-Request-Id %q", res.StatusCode, body, id)
	}
	if res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control %q", res.Header.Get("Cache-Control"))
	}
}

// TestOriginFails: 502, 503 and 504 of our own, on routes with and without cache.
func TestOriginFails(t *testing.T) {
	hang := make(chan struct{})
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/break"):
			c, _, _ := http.NewResponseController(w).Hijack()
			c.Close()
		case strings.HasSuffix(r.URL.Path, "/own"):
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "the origin's own")
		default:
			<-hang
		}
	})
	t.Cleanup(func() { close(hang) })
	cfg := app(t, o.URL)
	cfg.Origins[0].Timeouts.FirstByte = 100 * time.Millisecond
	cfg.Origins[0].Retries.Max = 0
	e := start(t, cfg)
	for _, prefix := range []string{"/api", "/cached"} {
		for _, tc := range []struct {
			path string
			code int
			says string
		}{{"/slow", 504, "in time"}, {"/break", 502, "broke off"}, {"/own", 502, "the origin's own"}} {
			res, body := e.do(e.client(), e.request("GET", prefix+tc.path, ""))
			if res.StatusCode != tc.code || !strings.Contains(body, tc.says) {
				t.Errorf("%s%s: %d %q, want %d %q", prefix, tc.path, res.StatusCode, body, tc.code, tc.says)
			}
			if id := res.Header.Get("X-Request-Id"); id == "" || tc.path != "/own" && !strings.Contains(body, id) {
				t.Errorf("%s%s: body %q does not name request %q", prefix, tc.path, body, id)
			}
			if res.Header.Get("Cache-Status") == "" {
				t.Errorf("%s%s: no Cache-Status", prefix, tc.path)
			}
		}
	}
}

func TestNoServerIsUp(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	o.Close()
	e := start(t, cfg)
	for _, path := range []string{"/api/x", "/cached"} {
		// The first answers may still be those of a failed connection.
		eventually(t, path+" is 503", func() bool {
			res, body := e.do(e.client(), e.request("GET", path, ""))
			return res.StatusCode == 503 && res.Header.Get("Retry-After") != "" && strings.Contains(body, res.Header.Get("X-Request-Id"))
		})
	}
}

func TestBodyLimit(t *testing.T) {
	var got atomic.Int64
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got.Store(n)
	})
	cfg := app(t, o.URL)
	cfg.Sites[0].Routes[0].MaxBody = 1000
	e := start(t, cfg)
	for _, tc := range []struct {
		size    int
		chunked bool
		code    int
	}{{1000, false, 200}, {1001, false, 413}, {1000, true, 200}, {1001, true, 413}, {1 << 20, true, 413}} {
		r := e.request("POST", "/api/x", strings.Repeat("x", tc.size))
		if tc.chunked {
			r.ContentLength = -1
		}
		res, _ := e.do(e.client(), r)
		if res.StatusCode != tc.code || tc.code == 200 && got.Load() != int64(tc.size) {
			t.Errorf("%d bytes (chunked %v): %d, origin got %d; want %d", tc.size, tc.chunked, res.StatusCode, got.Load(), tc.code)
		}
	}
	if res, _ := e.do(e.client(), e.request("POST", "/elsewhere", strings.Repeat("x", 5000))); res.StatusCode != 200 {
		t.Errorf("a route without limit: %d", res.StatusCode)
	}
}

func TestEarlyHintsAndTrailers(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Asked", r.Trailer.Get("X-Request-Sum"))
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	})
	e := start(t, app(t, o.URL))
	for _, tc := range []struct{ method, path string }{{"POST", "/api/x"}, {"GET", "/cached"}, {"POST", "/cached"}} {
		r := e.request(tc.method, tc.path, "")
		if tc.method == "POST" {
			r.Body = io.NopCloser(strings.NewReader("upload"))
			r.ContentLength = -1
			r.Trailer = http.Header{"X-Request-Sum": {"7"}}
		}
		var hints []string
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h["Link"]))
				return nil
			},
		}))
		res, body := e.do(e.client(), r)
		if body != "body" || res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("%s %s: body %q, trailer %v", tc.method, tc.path, body, res.Trailer)
		}
		if want := "[103 [</style.css>; rel=preload]]"; fmt.Sprint(hints) != want {
			t.Errorf("%s %s: hints %v, want %s", tc.method, tc.path, hints, want)
		}
		if tc.method == "POST" && res.Header.Get("X-Asked") != "7" {
			t.Errorf("%s %s: the origin got request trailer %q", tc.method, tc.path, res.Header.Get("X-Asked"))
		}
	}
}

func TestPanicIsOneRequests(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	e := start(t, cfg, func(d *proxy.Deps) {
		d.Beacon = func(netip.Addr, string, time.Duration) error { panic("broken") }
	})
	c := e.client()
	if res, body := e.do(c, e.request("POST", "/.nearzone/beacon", `{"zone": "z", "rtt_ms": 5}`)); res.StatusCode != 500 || !strings.Contains(body, res.Header.Get("X-Request-Id")) {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if s := e.ask(c, e.request("GET", "/api/x", "")); s.Path != "/api/x" {
		t.Errorf("the next request: %+v", s)
	}
	if got := e.metric("nearzone_proxy_panics_total"); got != 1 {
		t.Errorf("panics = %v", got)
	}
	worse := start(t, cfg, func(d *proxy.Deps) { d.Origins = nil })
	for path, code := range map[string]int{"/api/x": 500, "/cached": 502} {
		if res, body := worse.do(c, worse.request("GET", path, "")); res.StatusCode != code {
			t.Errorf("%s without origins: %d %q, want %d", path, res.StatusCode, body, code)
		}
	}
	if got := worse.metric("nearzone_proxy_panics_total"); got != 2 {
		t.Errorf("panics = %v, want 2", got)
	}
}

func TestOptionsAndMaxForwards(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL))
	if got := e.raw("OPTIONS * HTTP/1.1\r\nHost: play.example.com\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("OPTIONS *: %q", got)
	}
	if res, body := e.do(e.client(), e.request("OPTIONS", "/api/x", "", "Max-Forwards", "0")); res.StatusCode != 200 || body != "" {
		t.Errorf("Max-Forwards: 0: %d %q", res.StatusCode, body)
	}
	if s := e.ask(e.client(), e.request("OPTIONS", "/api/x", "", "Max-Forwards", "3")); s.Header.Get("Max-Forwards") != "2" {
		t.Errorf("Max-Forwards: 3 went on as %q", s.Header.Get("Max-Forwards"))
	}
}
