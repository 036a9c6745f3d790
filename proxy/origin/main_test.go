package origin_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// app is an origin named app with production defaults and the servers, written as in YAML: URLs, or host:port.
// "zone=" before a server puts it there.
func app(servers ...string) config.Origin {
	o := config.Origin{
		Name: "app", Host: "preserve",
		Check:    config.Check{Off: true},
		Balance:  config.Balance{Policy: config.LeastRequests},
		TLS:      config.OriginTLS{Verify: true},
		Timeouts: config.OriginTimeouts{Connect: time.Second, FirstByte: 10 * time.Second, Idle: time.Minute},
		Retries:  config.Retries{Max: 1, Budget: 0.1},
	}
	for _, s := range servers {
		var srv config.Server
		if zone, rest, ok := strings.Cut(s, "="); ok {
			srv.Zone, s = zone, rest
		}
		if scheme, rest, ok := strings.Cut(s, "://"); ok {
			srv.Scheme, s = scheme, rest
		}
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			panic(err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			panic(err)
		}
		srv.Host, srv.Port = host, uint16(n)
		o.Servers = append(o.Servers, srv)
	}
	return o
}

func configOf(origins ...config.Origin) *config.Config { return &config.Config{Origins: origins} }

// start makes a Set and runs it for as long as the test.
func start(t *testing.T, d origin.Deps, origins ...config.Origin) *origin.Set {
	t.Helper()
	s, err := origin.New(configOf(origins...), d)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return s
}

func run(t *testing.T, s *origin.Set) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func reload(t *testing.T, s *origin.Set, origins ...config.Origin) {
	t.Helper()
	apply, err := s.Reload(configOf(origins...))
	if err != nil {
		t.Fatal(err)
	}
	apply()
}

// pool is the pool of one origin.
func pool(t *testing.T, o config.Origin) *origin.Pool {
	t.Helper()
	return start(t, origin.Deps{}, o).Pool(o.Name)
}

// serve starts an HTTP/1.1 server and returns its URL.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// serveName starts a server that answers with its name.
func serveName(t *testing.T, name string) string {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
}

// raw starts a server that does as it likes with its connections, each until the test ends.
func raw(t *testing.T, handle func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// closedPort is an address that refuses connections.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func request(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://play.example.com/a/b?c=d", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// get asks once and returns status and body.
func get(t *testing.T, p *origin.Pool) (int, string, error) {
	t.Helper()
	return do(t, p, request(t, http.MethodGet, nil))
}

func do(t *testing.T, p *origin.Pool, req *http.Request) (int, string, error) {
	t.Helper()
	resp, err := p.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func hostOf(t *testing.T, rawURL string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func addrPort(t *testing.T, rawURL string) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort(hostOf(t, rawURL))
}
