package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
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
		c.CloseIdleConnections()
		eventually(t, "a sample at close", func() bool { return seen.len() == before+1 })
	})
	for _, s := range seen.all {
		if s != "127.0.0.1 true" {
			t.Errorf("sample %s", s)
		}
	}
	if got := e.metric("nearzone_proxy_samples_total"); got != 4 {
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

func TestAccessLog(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "hello")
	})
	e := start(t, app(t, o.URL))
	r := e.request("GET", "/a%20b?c=d", "", "User-Agent", "a \"quoted\"\tagent \xff", "Referer", "http://x/")
	e.do(e.client(), r)
	e.do(e.client(), e.request("GET", "/a%20b?c=d", ""))
	e.do(e.client(), e.request("GET", "/", "", "Host", "unknown.example"))
	eventually(t, "three lines", func() bool { return strings.Count(e.access.String(), "\n") == 3 })
	var lines []map[string]any
	for line := range strings.Lines(e.access.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, one)
	}
	for i, want := range []map[string]any{
		{
			"client": "127.0.0.1", "zone": "us-west-2-lax-1a", "node": "node-1", "site": "play", "method": "GET", "host": "play.example.com",
			"path": "/a%20b?c=d", "proto": "HTTP/1.1", "status": 200.0, "bytes": 5.0, "cache": "miss", "reason": "uri-miss", "origin": "app",
			"ua": "a \"quoted\"\tagent \ufffd", "referer": "http://x/",
		},
		{"cache": "hit", "reason": "fresh", "status": 200.0, "upstream_ms": nil},
		{"status": 421.0, "reason": "unknown_host", "site": nil, "origin": nil, "host": "unknown.example", "cache": nil},
	} {
		for name, value := range want {
			if lines[i][name] != value {
				t.Errorf("line %d: %s is %v, want %v", i, name, lines[i][name], value)
			}
		}
		if _, err := time.Parse(time.RFC3339, fmt.Sprint(lines[i]["time"])); err != nil {
			t.Errorf("line %d: time: %v", i, err)
		}
		if lines[i]["request_id"] == nil || lines[i]["duration_ms"] == nil {
			t.Errorf("line %d: %v", i, lines[i])
		}
	}
	if took, _ := lines[0]["upstream_ms"].(float64); took <= 0 {
		t.Errorf("upstream_ms %v", lines[0]["upstream_ms"])
	}
}

func TestAccessLogHidesClients(t *testing.T) {
	o := serve(t, echo)
	for how, want := range map[string]string{"full": `"client":"127.0.0.1"`, "prefix": `"client":"127.0.0.0/24"`, "none": `"zone"`} {
		cfg := app(t, o.URL)
		cfg.Log.Client = how
		e := start(t, cfg)
		e.do(e.client(), e.request("GET", "/api/x", ""))
		eventually(t, "a line with "+want, func() bool { return strings.Contains(e.access.String(), want) })
		if how == "none" && strings.Contains(e.access.String(), "127.0.0") {
			t.Errorf("%s: %s", how, e.access.String())
		}
	}
}

// stuck is a log that nobody reads.
type stuck struct{ until chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

func TestAccessLogNeverBlocks(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") })
	release := make(chan struct{})
	e := start(t, app(t, o.URL), func(d *proxy.Deps) { d.Access = stuck{release} })
	defer close(release)
	c := e.dial()
	br := bufio.NewReader(c)
	for range 5000 {
		io.WriteString(c, "GET /x HTTP/1.1\r\nHost: play.example.com\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
	}
	if e.metric("nearzone_proxy_access_log_dropped_lines_total") == 0 {
		t.Error("no line was dropped")
	}
}

func TestSlowClients(t *testing.T) {
	endless := bytes.Repeat([]byte("x"), 1<<20)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path != "/api/endless" {
			return
		}
		for {
			if _, err := w.Write(endless); err != nil {
				return
			}
		}
	})
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	limits := proxy.Limits{Head: 200 * time.Millisecond, Handshake: 200 * time.Millisecond, Idle: 300 * time.Millisecond, Body: 200 * time.Millisecond, Stall: 300 * time.Millisecond}
	e := start(t, cfg, tlsOn, func(d *proxy.Deps) { d.Limits = limits })
	for _, tc := range []struct{ name, sent, codes string }{
		{"nothing", "", ""},
		{"half a head", "GET / HTTP/1.1\r\nHost:", "408"},
		{"idle after a request", "GET /api/x HTTP/1.1\r\nHost: play.example.com\r\n\r\n", "200"},
		{"half a body", "POST /api/x HTTP/1.1\r\nHost: play.example.com\r\nContent-Length: 10\r\n\r\nhalf", "408"},
		{"half a chunk", "POST /cached HTTP/1.1\r\nHost: play.example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", "408"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := e.dial()
			io.WriteString(c, tc.sent)
			if got := answersOn(c); got != tc.codes {
				t.Errorf("answered %q, want %q", got, tc.codes)
			}
		})
	}
	t.Run("TLS handshake", func(t *testing.T) {
		c, err := net.Dial("tcp", e.secure)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("read %q, %v, want the end", got, err)
		}
	})
	t.Run("takes nothing", func(t *testing.T) {
		everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, _ int) {
			r, _ := http.NewRequest("GET", base+"/api/endless", nil)
			r.Host = "play.example.com"
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			eventually(t, "the request is given up", func() bool { return strings.Count(e.access.String(), "/api/endless") > 0 })
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("the cut answer looks whole")
			}
		})
	})
	t.Run("slow but alive", func(t *testing.T) {
		c := e.dial()
		io.WriteString(c, "POST /api/x HTTP/1.1\r\nHost: play.example.com\r\nContent-Length: 10\r\nConnection: close\r\n\r\n")
		tick := time.NewTicker(limits.Body / 2)
		defer tick.Stop()
		for range 10 {
			<-tick.C
			io.WriteString(c, "x")
		}
		if got := answersOn(c); got != "200" {
			t.Errorf("answered %q, want 200", got)
		}
	})
}

func TestConnectionCap(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL), func(d *proxy.Deps) { d.Limits.Conns = 3 })
	var conns []net.Conn
	for range 3 {
		conns = append(conns, e.dial())
	}
	eventually(t, "three connections", func() bool { return e.metric("nearzone_proxy_connections{transport=tcp}") == 3 })
	if got := e.raw("GET /.nearzone/health HTTP/1.1\r\nHost: x\r\n\r\n"); got != "" {
		t.Errorf("the fourth connection was answered: %q", got)
	}
	conns[0].Close()
	eventually(t, "there is room again", func() bool { return e.metric("nearzone_proxy_connections{transport=tcp}") == 2 })
	if got := e.raw("GET /.nearzone/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("with room again: %q", got)
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
