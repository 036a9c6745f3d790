package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/admin"
	"github.com/nearzone/nearzone/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is one running door.
type node struct {
	*admin.Server
	reg *prometheus.Registry
}

func (n node) url() string { return "http://" + n.Addr().String() }

func start(t *testing.T, cfg config.Admin, h admin.Hooks) node {
	t.Helper()
	reg := prometheus.NewRegistry()
	srv, err := admin.Listen(cfg, h, reg, admin.Options{Reg: reg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return node{srv, reg}
}

var loopback = config.Admin{Listen: "127.0.0.1:0"}

// hooks answer with what they were asked.
func hooks() admin.Hooks {
	return admin.Hooks{
		Status:  func() any { return map[string]string{"zone": "us-west-2-lax-1a"} },
		Zones:   func() any { return []string{"us-west-2"} },
		Purge:   func(_ context.Context, b json.RawMessage) (any, error) { return map[string]any{"got": b}, nil },
		Drain:   func(_ context.Context, t string, u bool) (any, error) { return fmt.Sprint(t, " ", u), nil },
		Explain: func(n, c string) (any, error) { return n + "|" + c, nil },
		Reload:  func() error { return errors.New("nearzone.yaml:3:1: unknown key") },
	}
}

func TestPaths(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	tests := []struct {
		name, method, path, body string
		header                   map[string]string
		code                     int
		want                     string // part of the body
	}{
		{name: "live", path: "/livez", code: 200, want: `"ok"`},
		{name: "ready", path: "/readyz", code: 200, want: `"ok"`},
		{name: "metrics", path: "/metrics", code: 200, want: "# HELP nearzone_admin_requests_total"},
		{name: "status", path: "/v1/status", code: 200, want: "us-west-2-lax-1a"},
		{name: "zones", path: "/v1/zones", code: 200, want: "us-west-2"},
		{name: "explain", path: "/v1/explain?client=198.51.100.7&name=a.example", code: 200, want: "a.example|198.51.100.7"},
		{name: "explain nobody", path: "/v1/explain", code: 400, want: "client is missing"},
		{name: "purge", method: "POST", path: "/v1/purge", body: `{"tag":"a","soft":true}`, code: 200, want: `"tag"`},
		{name: "purge nothing", method: "POST", path: "/v1/purge", body: `null`, code: 400, want: "nothing to purge"},
		{name: "purge no body", method: "POST", path: "/v1/purge", code: 400, want: "JSON object"},
		{name: "purge twice", method: "POST", path: "/v1/purge", body: `{"tag":"a"}{}`, code: 400, want: "more than one"},
		{name: "purge too much", method: "POST", path: "/v1/purge", body: `{"tag":"` + big + `"}`, code: 413, want: "larger than"},
		{name: "drain", method: "POST", path: "/v1/drain", body: `{"target":"phx"}`, code: 200, want: "phx false"},
		{name: "drain back", method: "POST", path: "/v1/drain", body: `{"target":"phx","undo":true}`, code: 200, want: "phx true"},
		{name: "drain whom", method: "POST", path: "/v1/drain", body: `{}`, code: 400, want: "target is missing"},
		{name: "drain typo", method: "POST", path: "/v1/drain", body: `{"traget":"phx"}`, code: 400, want: "traget"},
		{name: "reload refused", method: "POST", path: "/v1/reload", code: 400, want: "nearzone.yaml:3:1: unknown key"},
		{name: "get does not purge", path: "/v1/purge", code: 404, want: "no such path"},
		{name: "unknown", path: "/v2", code: 404, want: "no such path"},
		{name: "rebinding", path: "/v1/status", header: map[string]string{"Host": "evil.example:9180"}, code: 403, want: "loopback"},
		{name: "rebinding to an address", path: "/v1/status", header: map[string]string{"Host": "192.0.2.1"}, code: 403, want: "loopback"},
		{name: "localhost", path: "/v1/status", header: map[string]string{"Host": "localhost:9180"}, code: 200, want: "lax"},
		{name: "ipv6", path: "/v1/status", header: map[string]string{"Host": "[::1]"}, code: 200, want: "lax"},
		{name: "foreign page", method: "POST", path: "/v1/drain", body: `{"target":"phx"}`,
			header: map[string]string{"Origin": "https://evil.example", "Content-Type": "application/json"}, code: 403, want: "elsewhere"},
		{name: "sandboxed page", method: "POST", path: "/v1/drain", body: `{"target":"phx"}`,
			header: map[string]string{"Origin": "null"}, code: 403, want: "elsewhere"},
		{name: "fetch metadata", path: "/v1/status", header: map[string]string{"Sec-Fetch-Site": "cross-site"}, code: 403, want: "elsewhere"},
		{name: "own page, form", method: "POST", path: "/v1/drain", body: `{"target":"phx"}`,
			header: map[string]string{"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1", "Content-Type": "text/plain"}, code: 415, want: "application/json"},
		{name: "own page", method: "POST", path: "/v1/drain", body: `{"target":"phx"}`,
			header: map[string]string{"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1", "Content-Type": "application/json; charset=utf-8"}, code: 200, want: "phx"},
	}
	n := start(t, loopback, hooks())
	n.ask(t, "GET", "/livez", "", nil) // so that a counter exists
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if tc.method == "" {
				tc.method = "GET"
			}
			code, body := n.ask(t, tc.method, tc.path, tc.body, tc.header)
			if code != tc.code || !strings.Contains(body, tc.want) {
				t.Errorf("%s %s = %d %q, want %d with %q", tc.method, tc.path, code, body, tc.code, tc.want)
			}
			if code >= 400 && !strings.Contains(body, `"error"`) {
				t.Errorf("%s %s: error body %q is not JSON", tc.method, tc.path, body)
			}
		})
	}
	if problems, err := testutil.GatherAndLint(n.reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func (n node) ask(t *testing.T, method, path, body string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, n.url()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if h := header["Host"]; h != "" {
		req.Host = h
	}
	resp, err := plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

func TestReadiness(t *testing.T) {
	n := start(t, loopback, admin.Hooks{Ready: func() error { return errors.New("draining") }})
	if code, body := n.ask(t, "GET", "/readyz", "", nil); code != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readyz = %d %q, want 503 draining", code, body)
	}
	if code, _ := n.ask(t, "GET", "/livez", "", nil); code != 200 {
		t.Errorf("livez = %d while draining, want 200", code)
	}
	if code, body := n.ask(t, "POST", "/v1/reload", "", nil); code != 501 {
		t.Errorf("reload without hook = %d %q, want 501", code, body)
	}
}

func TestUnavailable(t *testing.T) {
	n := start(t, loopback, admin.Hooks{Explain: func(_, _ string) (any, error) {
		return nil, fmt.Errorf("no table yet: %w", admin.ErrUnavailable)
	}})
	if code, body := n.ask(t, "GET", "/v1/explain?client=x", "", nil); code != 503 || !strings.Contains(body, "no table yet") {
		t.Errorf("got %d %q, want 503", code, body)
	}
}

func TestMetricsListener(t *testing.T) {
	prefixes := func(s ...string) (ps []netip.Prefix) {
		for _, p := range s {
			ps = append(ps, netip.MustParsePrefix(p))
		}
		return ps
	}
	cfg := config.Admin{Metrics: config.AdminMetrics{Listen: "127.0.0.1:0"}}
	n := start(t, cfg, hooks())
	if n.Addr() != nil {
		t.Fatalf("a door at %v that nobody asked for", n.Addr())
	}
	get := func(path string) int {
		resp, err := plain.Get("http://" + n.MetricsAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for path, want := range map[string]int{"/metrics": 200, "/livez": 200, "/readyz": 200, "/v1/status": 404, "/v1/purge": 404} {
		if got := get(path); got != want {
			t.Errorf("%s = %d, want %d", path, got, want)
		}
	}

	next := &config.Config{Admin: cfg}
	next.Admin.Metrics.From = prefixes("10.0.0.0/16")
	apply, err := n.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if got := get("/metrics"); got != 403 {
		t.Errorf("/metrics from outside the prefixes = %d, want 403", got)
	}
	next.Admin.Metrics.Listen = "127.0.0.1:1"
	if _, err := n.Reload(next); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("Reload with another address: %v, want an error that says restart", err)
	}
}

func TestListenRefuses(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for address, want := range map[string]string{
		"0.0.0.0:9180":         "not loopback",
		":9180":                "not loopback",
		"192.0.2.1:9180":       "not loopback",
		"127.0.0.1":            "write it as",
		held.Addr().String():   "choose another address",
		"example.com:9180":     "not loopback",
		"127.0.0.1.evil.com:1": "not loopback",
	} {
		_, err := admin.Listen(config.Admin{Listen: address}, admin.Hooks{}, prometheus.NewRegistry(), admin.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen(%q): %v, want %q", address, err, want)
		}
	}
}

func TestClient(t *testing.T) {
	ctx := context.Background()
	n := start(t, loopback, hooks())
	c := admin.NewClient(n.Addr().String())

	var status struct{ Zone string }
	if err := c.Get(ctx, "/v1/status", &status); err != nil || status.Zone != "us-west-2-lax-1a" {
		t.Errorf("Get: %+v, %v", status, err)
	}
	var said string
	if err := c.Post(ctx, "/v1/drain", map[string]any{"target": "phx", "undo": true}, &said); err != nil || said != "phx true" {
		t.Errorf("Post: %q, %v", said, err)
	}
	var no *admin.StatusError
	if err := c.Post(ctx, "/v1/reload", nil, nil); !errors.As(err, &no) || no.Code != 400 || !strings.Contains(err.Error(), "nearzone.yaml:3:1") {
		t.Errorf("Post reload: %v", err)
	}
}

func TestClientWithoutNode(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + ln.Addr().String()
	ln.Close()

	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go web.Serve(stranger)
	defer web.Close()

	for base, want := range map[string]string{
		gone:                                 "no node answers at " + gone,
		"http://" + stranger.Addr().String(): "which no nearzone does here",
		"ftp://127.0.0.1:1":                  "is not a URL such as",
		"http://":                            "is not a URL such as",
	} {
		err := admin.NewClient(base).Get(context.Background(), "/v1/status", nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "NEARZONE_ADMIN") {
			t.Errorf("%s: %v, want %q and the remedy", base, err, want)
		}
	}
}
