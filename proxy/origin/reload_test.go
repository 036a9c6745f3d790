package origin_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

// counted is a server that counts its connections, open ones and all.
func counted(t *testing.T, h http.HandlerFunc) (url string, all, open *atomic.Int32) {
	t.Helper()
	all, open = new(atomic.Int32), new(atomic.Int32)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			all.Add(1)
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL, all, open
}

func TestReloadKeepsConnectionsThatAreStillWanted(t *testing.T) {
	url, all, _ := counted(t, func(http.ResponseWriter, *http.Request) {})
	second := serveName(t, "second")
	o := app(url)
	for name, change := range map[string]func(o *config.Origin){
		"nothing":           func(*config.Origin) {},
		"balance":           func(o *config.Origin) { o.Balance.Policy = config.RoundRobin },
		"check":             func(o *config.Origin) { o.Check = config.Check{TCP: true, Every: time.Hour} },
		"retries":           func(o *config.Origin) { o.Retries.Max = 2 },
		"one more server":   func(o *config.Origin) { o.Servers = append(app(second).Servers, o.Servers...) },
		"the Host header":   func(o *config.Origin) { o.Host = "internal.example.net" },
		"the way past zone": func(o *config.Origin) { o.Via = "us-west-2" },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, origin.Deps{}, o)
			before := s.Pool("app")
			if _, _, err := get(t, before); err != nil {
				t.Fatal(err)
			}
			conns := all.Load()
			next := o
			change(&next)
			reload(t, s, next, config.Origin{Name: "other"})
			if same := s.Pool("app") == before; same != (name == "nothing") {
				t.Errorf("same pool: %v", same)
			}
			for range 10 {
				for _, p := range []*origin.Pool{s.Pool("app"), before} {
					if _, _, err := get(t, p); err != nil {
						t.Fatal(err)
					}
				}
			}
			checks := int32(0)
			if name == "check" {
				checks = 1
			}
			if n := all.Load(); n > conns+checks {
				t.Errorf("%d new connections after the reload, want none", n-conns)
			}
		})
	}
}

func TestReloadKeepsHealth(t *testing.T) {
	url := refused(t)
	o := app(url, serveName(t, "good"))
	s := start(t, origin.Deps{}, o)
	for range 3 {
		s.Pool("app").Report(addrPort(t, url), false)
	}
	next := o
	next.Timeouts.Connect = 2 * time.Second // other transports, same servers
	reload(t, s, next)
	if st := s.Pool("app").Status(); st[0].Up || !st[1].Up {
		t.Errorf("status after the reload = %+v, want the first still down", st)
	}
}

func TestRemovedOriginFinishesWhatIsInFlight(t *testing.T) {
	release := make(chan struct{})
	url, _, open := counted(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "begin ")
		http.NewResponseController(w).Flush()
		<-release
		io.WriteString(w, "end")
	})
	s := start(t, origin.Deps{}, app(url))
	resp, err := s.Pool("app").RoundTrip(request(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	reload(t, s)
	if s.Pool("app") != nil {
		t.Error("the removed origin is still there")
	}
	close(release)
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "begin end" {
		t.Errorf("body = %q, %v", b, err)
	}
	resp.Body.Close()
	eventually(t, "the connection is closed", func() bool { return open.Load() == 0 })
}

func TestFailedReloadChangesNothing(t *testing.T) {
	o := app(serveName(t, "good"))
	s := start(t, origin.Deps{}, o)
	before := s.Pool("app")
	bad := o
	bad.TLS.CA = "/nonexistent/ca.pem"
	if _, err := s.Reload(configOf(bad)); err == nil {
		t.Fatal("a missing CA file was accepted")
	}
	if s.Pool("app") != before {
		t.Error("the pool was replaced")
	}
}

func TestNewCertificateFilesMakeANewPool(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	o := app(srv.URL)
	o.TLS.CA = caFile(t, srv)
	right, err := os.ReadFile(o.TLS.CA)
	if err != nil {
		t.Fatal(err)
	}
	wrong, _ := keyPair(t)
	b, err := os.ReadFile(wrong)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.TLS.CA, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, origin.Deps{}, o)
	if _, _, err := get(t, s.Pool("app")); err == nil {
		t.Fatal("the wrong root was accepted")
	}
	if err := os.WriteFile(o.TLS.CA, right, 0o600); err != nil {
		t.Fatal(err)
	}
	reload(t, s, o)
	if _, _, err := get(t, s.Pool("app")); err != nil {
		t.Errorf("after the file was put right: %v", err)
	}
}

func TestReloadKeepsAddressesOfNames(t *testing.T) {
	block := make(chan struct{})
	var asked atomic.Int32
	s := start(t, origin.Deps{Resolve: func(ctx context.Context, _ string) ([]netip.Addr, time.Duration, error) {
		if asked.Add(1) > 1 { // from the second time on nobody answers
			select {
			case <-block:
			case <-ctx.Done():
			}
		}
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, time.Hour, ctx.Err()
	}}, app("http://api.example.net:80"))
	defer close(block)
	eventually(t, "the name is resolved", func() bool { return len(s.Pool("app").Status()) == 1 })
	next := app("http://api.example.net:80")
	next.Retries.Max = 3
	reload(t, s, next)
	if st := s.Pool("app").Status(); len(st) != 1 || st[0].Address.Addr().String() != "192.0.2.1" {
		t.Errorf("status = %+v, want the address of before", st)
	}
}

func TestStoppedSetClosesItsConnections(t *testing.T) {
	url, _, open := counted(t, func(http.ResponseWriter, *http.Request) {})
	s, err := origin.New(configOf(app(url)), origin.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if _, _, err := get(t, s.Pool("app")); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	eventually(t, "the connection is closed", func() bool { return open.Load() == 0 })
}

func TestMetricsAreClean(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := start(t, origin.Deps{Reg: reg}, app(serveName(t, "good")))
	if _, _, err := get(t, s.Pool("app")); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil || len(families) < 9 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) != 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	reload(t, s)
	if families, err = reg.Gather(); err != nil || len(families) != 0 {
		t.Errorf("%d families after the origin was removed, %v, want none", len(families), err)
	}
	if _, err := origin.New(configOf(), origin.Deps{Reg: reg}); err == nil {
		t.Error("two sets on one registry")
	}
}
