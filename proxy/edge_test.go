package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy"
)

// observed collects samples.
type observed struct {
	mu  sync.Mutex
	all []string
}

func (o *observed) add(client netip.Addr, rtt time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, fmt.Sprint(client, rtt > 0 && rtt < time.Second))
}

func (o *observed) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.all)
}

// TestSamples: each connection whose peer is the client is measured, none of a proxy.
func TestSamples(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	var seen observed
	e := start(t, cfg, tlsOn, func(d *proxy.Deps) { d.Observe = seen.add })
	everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, _ int) {
		before := seen.len()
		r, _ := http.NewRequest("GET", base+"/api/x", nil)
		r.Host = "play.example.com"
		e.do(c, r)
		e.SampleAll()
		e.SampleAll() // nothing has moved since
		if got := seen.len(); got != before+1 {
			t.Errorf("%d samples while open, want 1", got-before)
		}
		e.do(c, r)
		c.CloseIdleConnections()
		eventually(t, "a sample at close", func() bool { return seen.len() == before+2 })
	})
	for _, s := range seen.all {
		if s != "127.0.0.1 true" {
			t.Errorf("sample %s", s)
		}
	}
	if got := e.metric("nearzone_proxy_samples_total"); got != 8 {
		t.Errorf("samples = %v", got)
	}

	trusted := app(t, o.URL)
	trusted.Listen.Trust.Proxies = loopback()
	proxied := app(t, o.URL)
	proxied.Listen.Trust.ProxyProtocol = loopback()
	for name, cfg := range map[string]*config.Config{"X-Forwarded-For": trusted, "PROXY": proxied} {
		var none observed
		e := start(t, cfg, func(d *proxy.Deps) { d.Observe = none.add })
		c := e.dial()
		if name == "PROXY" {
			proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}, c.LocalAddr()).WriteTo(c)
		}
		io.WriteString(c, "GET /api/x HTTP/1.1\r\nHost: play.example.com\r\nX-Forwarded-For: 203.0.113.7\r\nConnection: close\r\n\r\n")
		if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.1 200") {
			t.Errorf("%s: %q", name, got)
		}
		eventually(t, "the connection is closed", func() bool { return e.metric("nearzone_proxy_connections{transport=tcp}") == 0 })
		if none.len() > 0 {
			t.Errorf("%s: sampled %v", name, none.all)
		}
	}
}

func TestProxyProtocol(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Listen.Trust.ProxyProtocol = loopback()
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn, func(d *proxy.Deps) { d.Limits.Head = 200 * time.Millisecond })
	const request = "GET /api/x HTTP/1.1\r\nHost: play.example.com\r\nConnection: close\r\n\r\n"
	v2 := func(from string) string {
		var b bytes.Buffer
		proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}).WriteTo(&b)
		return b.String()
	}
	for name, tc := range map[string]struct{ header, client string }{
		"v1":           {"PROXY TCP4 203.0.113.7 127.0.0.1 4000 80\r\n", "203.0.113.7"},
		"v1 IPv6":      {"PROXY TCP6 2001:db8::7 ::1 4000 80\r\n", "2001:db8::7"},
		"v1 unknown":   {"PROXY UNKNOWN\r\n", "127.0.0.1"},
		"v2":           {v2("203.0.113.7:4000"), "203.0.113.7"},
		"v2 local":     {"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "127.0.0.1"},
		"none":         {"", ""},
		"v1 malformed": {"PROXY TCP4 203.0.113.7\r\n", ""},
		"v2 cut":       {"\r\n\r\n\x00\r\nQUIT\n\x21\x11", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := e.raw(tc.header + request)
			want := `"X-Forwarded-For":["` + tc.client + `"]`
			if tc.client == "" && got != "" || tc.client != "" && !strings.Contains(got, want) {
				t.Errorf("answered %q, want client %q", got, tc.client)
			}
		})
	}
	if got := e.metric("nearzone_proxy_refused_connections_total{reason=proxy_header}"); got != 3 {
		t.Errorf("refused{proxy_header} = %v, want 3", got)
	}
	eventually(t, "no connection is left", func() bool { return e.metric("nearzone_proxy_connections{transport=tcp}") == 0 })

	// Who speaks HTTP is who the PROXY header names. That the balancer in between is trusted says nothing of them.
	cfg = app(t, o.URL)
	cfg.Listen.Trust.ProxyProtocol = loopback()
	cfg.Listen.Trust.Proxies = append(loopback(), netip.MustParsePrefix("203.0.113.0/24"))
	both := start(t, cfg)
	for from, want := range map[string]string{"198.51.100.7:4000": "198.51.100.7", "203.0.113.7:4000": "192.0.2.9, 203.0.113.7"} {
		got := both.raw(v2(from) + strings.Replace(request, "Connection", "X-Forwarded-For: 192.0.2.9\r\nConnection", 1))
		if !strings.Contains(got, `"X-Forwarded-For":["`+want+`"]`) {
			t.Errorf("from %s: answered %q, want X-Forwarded-For %q", from, got, want)
		}
	}

	stranger := start(t, app(t, o.URL))
	if got := stranger.raw(v2("203.0.113.7:4000") + request); !strings.HasPrefix(got, "HTTP/1.1 400") {
		t.Errorf("a stranger's PROXY header: %q, want 400", got)
	}
}

func TestReserved(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Sites = append(cfg.Sites, config.Site{Name: "off", Hosts: []string{"off.example"}, Routes: cfg.Sites[0].Routes})
	e := start(t, cfg, func(d *proxy.Deps) { d.Beacon = func(netip.Addr, string, time.Duration) error { return nil } })
	for _, tc := range []struct {
		host, method, path string
		code               int
		says               string
	}{
		{"play.example.com", "GET", "/.nearzone/health", 200, "ok\n"},
		{"unknown.example", "GET", "/.nearzone/health", 200, "ok\n"},
		{"127.0.0.1:8080", "GET", "/.nearzone/health", 200, "ok\n"},
		{"off.example", "GET", "/.nearzone/health", 200, "/.nearzone/health"}, // the site's own
		{"play.example.com", "DELETE", "/.nearzone/health", 405, ""},
		{"play.example.com", "GET", "/.nearzone/whoami", 200, `"client":"127.0.0.1","zone":"us-west-2-lax-1a","node":"node-1"`},
		{"unknown.example", "GET", "/.nearzone/whoami", 421, ""},
		{"play.example.com", "GET", "/.nearzone/", 404, ""},
		{"play.example.com", "GET", "/.nearzone", 404, ""},
		{"play.example.com", "GET", "/.nearzone/other", 404, ""},
		{"play.example.com", "GET", "/.nearzone/health/x", 404, ""},
		{"play.example.com", "GET", "/%2enearzone/other", 404, ""},
		{"play.example.com", "GET", "//.nearzone/other", 404, ""},
		{"play.example.com", "GET", "/.nearzone%2Fhealth", 404, ""},
		{"off.example", "GET", "/.nearzone/other", 200, "/.nearzone/other"},
	} {
		res, body := e.do(e.client(), e.request(tc.method, tc.path, "", "Host", tc.host))
		if res.StatusCode != tc.code || !strings.Contains(body, tc.says) {
			t.Errorf("%s %s%s: %d %q, want %d %q", tc.method, tc.host, tc.path, res.StatusCode, body, tc.code, tc.says)
		}
	}
	res, body := e.do(e.client(), e.request("GET", "/.nearzone/whoami", ""))
	if !strings.Contains(body, res.Header.Get("X-Request-Id")) || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("whoami: %q, %v", body, res.Header)
	}
}

func TestBeacon(t *testing.T) {
	o := serve(t, echo)
	var mu sync.Mutex
	var got []string
	take := func(d *proxy.Deps) {
		d.Beacon = func(client netip.Addr, zone string, rtt time.Duration) error {
			if zone == "unknown" {
				return errors.New("no such zone")
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprint(client, " ", zone, " ", rtt))
			return nil
		}
	}
	e := start(t, app(t, o.URL), take)
	c := e.client()
	for _, tc := range []struct {
		body string
		code int
		want string
	}{
		{`{"zone": "us-west-2-lax-1a", "rtt_ms": 12.5}`, 204, "[127.0.0.1 us-west-2-lax-1a 12.5ms]"},
		{`{"samples": [{"zone": "a", "rtt_ms": 1}, {"zone": "b", "rtt_ms": 2000}]}`, 204, "[127.0.0.1 a 1ms 127.0.0.1 b 2s]"},
		{`{"zone": "a", "rtt_ms": 0.5}`, 400, "[]"},
		{`{"zone": "a", "rtt_ms": 2001}`, 400, "[]"},
		{`{"zone": "a", "rtt_ms": -3}`, 400, "[]"},
		{`{"zone": "a", "rtt_ms": 1e400}`, 400, "[]"},
		{`{"zone": "a"}`, 400, "[]"},
		{`{"rtt_ms": 5}`, 400, "[]"},
		{`{"zone": "unknown", "rtt_ms": 5}`, 400, "[]"},
		{`{}`, 400, "[]"},
		{`not JSON`, 400, "[]"},
		{`{"zone": "` + strings.Repeat("a", 5000) + `", "rtt_ms": 5}`, 400, "[]"},
		{`{"samples": [` + strings.Repeat(`{"zone":"a","rtt_ms":1},`, 99) + `{"zone":"a","rtt_ms":1}]}`, 400, "[]"},
	} {
		got = nil
		res, body := e.do(c, e.request("POST", "/.nearzone/beacon", tc.body))
		if res.StatusCode != tc.code || fmt.Sprint(got) != tc.want {
			t.Errorf("%.60s: %d %q, told %v; want %d, %s", tc.body, res.StatusCode, body, got, tc.code, tc.want)
		}
		if res.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%.60s: no CORS: %v", tc.body, res.Header)
		}
	}
	if res, _ := e.do(c, e.request("OPTIONS", "/.nearzone/beacon", "")); res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Methods") != "POST" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
	if res, _ := e.do(c, e.request("GET", "/.nearzone/beacon", "")); res.StatusCode != 405 {
		t.Errorf("GET: %d", res.StatusCode)
	}
	limited := false
	for range 100 {
		res, _ := e.do(c, e.request("POST", "/.nearzone/beacon", `{"zone": "a", "rtt_ms": 5}`))
		limited = limited || res.StatusCode == 429
	}
	if !limited {
		t.Error("100 reports from one network were all taken")
	}

	cfg := app(t, o.URL)
	cfg.Listen.Trust.Proxies = loopback()
	proxied := start(t, cfg, take)
	if res, _ := proxied.do(c, proxied.request("POST", "/.nearzone/beacon", `{"zone": "a", "rtt_ms": 5}`)); res.StatusCode != 403 {
		t.Errorf("through a proxy: %d, want 403", res.StatusCode)
	}
	without := start(t, app(t, o.URL))
	if res, _ := without.do(c, without.request("POST", "/.nearzone/beacon", `{"zone": "a", "rtt_ms": 5}`)); res.StatusCode != 404 {
		t.Errorf("where nobody wants reports: %d, want 404", res.StatusCode)
	}
}

func TestMetrics(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "hello")
	})
	e := start(t, app(t, o.URL))
	c := e.client()
	for _, path := range []string{"/a", "/a", "/api/x"} {
		e.do(c, e.request("GET", path, ""))
	}
	for series, want := range map[string]float64{
		"nearzone_proxy_requests_total{cache=miss,code=200,site=play}":   1,
		"nearzone_proxy_requests_total{cache=hit,code=200,site=play}":    1,
		"nearzone_proxy_requests_total{cache=bypass,code=200,site=play}": 1,
		"nearzone_proxy_request_duration_seconds{site=play}":             3,
		"nearzone_proxy_connections{transport=tcp}":                      1,
	} {
		eventually(t, fmt.Sprint(series, " is ", want), func() bool { return e.metric(series) == want })
	}
	families, err := e.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	if e.metric("nearzone_proxy_sent_bytes_total") == 0 || e.metric("nearzone_proxy_received_bytes_total") == 0 {
		t.Error("no bytes were counted")
	}
}
