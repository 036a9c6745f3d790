package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
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

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy"
	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
	"github.com/nearzone/nearzone/proxy/origin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is one running proxy with all it stands on.
type edge struct {
	*proxy.Proxy
	t       *testing.T
	cfg     *config.Config
	origins *origin.Set
	addr    string // of listen.http
	secure  string // of listen.https
	reg     *prometheus.Registry
	access  *syncBuffer
	stop    func() // ends Run and waits
}

// syncBuffer is a buffer for one writer and one reader.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// server is the configuration of an origin's server at rawURL.
func server(t *testing.T, rawURL string) config.Server {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return config.Server{Scheme: u.Scheme, Host: u.Hostname(), Port: uint16(port)}
}

// app is a configuration with one origin and one site, play.example.com, that caches what the origin lets it, and
// nothing under /api.
func app(t *testing.T, originURL string) *config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Listen.HTTP = "127.0.0.1:0"
	cfg.Drain.HTTP = 5 * time.Second
	cfg.Origins = []config.Origin{originAt(t, "app", originURL)}
	cfg.Sites = []config.Site{{
		Name: "play", Hosts: []string{"play.example.com", "*.play.example.com"}, Reserved: true, Upgrade: time.Hour,
		Routes: []config.Route{
			{Path: "/api/**", Origin: "app", Cache: config.Cache{Off: true}},
			{Path: "/**", Origin: "app", Cache: config.Cache{MaxObject: 64 << 20}},
		},
	}}
	return cfg
}

func originAt(t *testing.T, name, rawURL string) config.Origin {
	return config.Origin{
		Name: name, Servers: []config.Server{server(t, rawURL)}, Check: config.Check{Off: true},
		Balance: config.Balance{Policy: config.LeastRequests}, Host: "preserve", TLS: config.OriginTLS{Verify: true},
		Timeouts: config.OriginTimeouts{Connect: time.Second, FirstByte: 5 * time.Second, Idle: 5 * time.Second},
		Retries:  config.Retries{Max: 1, Budget: 0.1},
	}
}

// start runs an edge until the test ends.
func start(t *testing.T, cfg *config.Config, change ...func(*proxy.Deps)) *edge {
	t.Helper()
	e := &edge{t: t, cfg: cfg, reg: prometheus.NewPedanticRegistry(), access: &syncBuffer{}}
	quiet := slog.New(slog.DiscardHandler)
	d := proxy.Deps{
		Zone: "us-west-2-lax-1a", Node: "node-1", Log: quiet, Reg: e.reg, Access: e.access,
		Cache: cache.New(cache.Options{Store: store.New(64<<20, nil), Log: quiet}),
	}
	var err error
	if e.origins, err = origin.New(cfg, origin.Deps{Zone: d.Zone, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	d.Origins = e.origins
	for _, c := range change {
		c(&d)
	}
	if e.Proxy, err = proxy.Listen(cfg, d); err != nil {
		t.Fatal(err)
	}
	clear, secure := e.Addrs()
	if clear != nil {
		e.addr = clear.String()
	}
	if secure != nil {
		e.secure = secure.String()
	}
	e.run(d.Cache.Run, e.origins.Run, e.Proxy.Run)
	return e
}

// run starts the parts; the proxy is the last of them and the first to end.
func (e *edge) run(parts ...func(context.Context) error) {
	ends := make([]func(), 0, len(parts))
	for _, part := range parts {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- part(ctx) }()
		ends = append(ends, func() {
			cancel()
			if err := <-done; err != nil {
				e.t.Errorf("Run: %v", err)
			}
		})
	}
	e.stop = sync.OnceFunc(func() {
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i]()
		}
	})
	e.t.Cleanup(e.stop)
}

// serve starts an origin.
func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// echo answers with the request as it came: its head as JSON.
type seen struct {
	Method, Path, Host, Proto string
	Header                    http.Header
	Body                      string
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, r.Proto, r.Header, string(body)})
}

// client has connections of its own.
func (e *edge) client() *http.Client {
	tr := &http.Transport{DisableCompression: true}
	e.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// request is a request to the edge for play.example.com.
func (e *edge) request(method, path, body string, fields ...string) *http.Request {
	e.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, "http://"+e.addr+path, in)
	if err != nil {
		e.t.Fatal(err)
	}
	r.Host = "play.example.com"
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Host" {
			r.Host = fields[i+1]
		} else {
			r.Header.Add(fields[i], fields[i+1])
		}
	}
	return r
}

// do sends a request and gives its answer, the body read.
func (e *edge) do(c *http.Client, r *http.Request) (*http.Response, string) {
	e.t.Helper()
	res, err := c.Do(r)
	if err != nil {
		e.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatalf("%s %s: body: %v", r.Method, r.URL, err)
	}
	return res, string(body)
}

// ask is do for an origin that echoes.
func (e *edge) ask(c *http.Client, r *http.Request) seen {
	e.t.Helper()
	res, body := e.do(c, r)
	var s seen
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		e.t.Fatalf("%s %s: %d %q", r.Method, r.URL, res.StatusCode, body)
	}
	return s
}

// raw sends bytes and reads until the edge closes.
func (e *edge) raw(sent string) string {
	e.t.Helper()
	c := e.dial()
	go io.WriteString(c, sent)
	got, _ := io.ReadAll(c)
	return string(got)
}

func (e *edge) dial() net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	e.t.Cleanup(func() { c.Close() })
	return c
}

// metric is the value of one series: `name{label="value"}` without quotes around the value.
func (e *edge) metric(series string) float64 {
	e.t.Helper()
	families, err := e.reg.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			if name == series {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

// eventually polls cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// answersOn lists the statuses of all responses on a connection, until it is closed.
func answersOn(c net.Conn) string {
	br := bufio.NewReader(c)
	var codes []string
	for {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return strings.Join(codes, " ")
		}
		codes = append(codes, fmt.Sprint(res.StatusCode))
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
