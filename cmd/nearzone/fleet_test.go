package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

func TestMain(m *testing.M) {
	if act, ok := actors[os.Getenv("NEARZONE_TEST_ACTOR")]; ok {
		if err := act(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, leaks()...)
}

const (
	lax  = "us-west-2-lax-1a"
	phx  = "us-west-2-phx-2a"
	home = "us-west-2"
	play = "play.example.com"
)

// testFleet is three nodes in this process: two Local Zones and their Region, with one DNS server at the Region.
type testFleet struct {
	t      *testing.T
	nodes  map[string]*node
	http   map[string]string // zone -> host:port
	stop   map[string]context.CancelFunc
	ended  map[string]chan error
	dns    string
	admin  string
	file   string
	origin *testOrigin
	env    map[string]string
}

// testOrigin counts what reaches it and can be told to fail.
type testOrigin struct {
	*httptest.Server
	requests atomic.Int64
	handler  atomic.Pointer[http.HandlerFunc]
}

func newTestOrigin(t *testing.T) *testOrigin {
	o := &testOrigin{}
	o.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "%s from the origin\n", r.URL.Path)
	})
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			o.requests.Add(1)
		}
		(*o.handler.Load())(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *testOrigin) serve(h http.HandlerFunc) { o.handler.Store(&h) }

const fleetYAML = `
node: {zone: "${ZONE}", data: "${DATA}/${ZONE}"}
home: us-west-2
zones:
  us-west-2-lax-1a:
    nodes: ["${LAX}"]
    set: {listen: {http: "${LAX}"}}
  us-west-2-phx-2a:
    nodes: ["${PHX}"]
    set: {listen: {http: "${PHX}"}}
  us-west-2:
    nodes: ["${HOME_NODE}"]
    set: {listen: {http: "${HOME_NODE}"}, dns: {listen: "${DNS}"}, admin: {listen: "${ADMIN}"}}
origins:
  app: {servers: ["${ORIGIN}"], check: {http: /healthz, every: 200ms, timeout: 1s, rise: 1, fall: 2}}
sites:
  play:
    hosts: [play.example.com]
    origin: app
    routes: [{path: "/api/**", cache: off}]
dns: {domains: [example.com], servers: [us-west-2]}
store: {memory: 32MiB}
health: {every: 500ms, timeout: 500ms}
routing: {build: 500ms, explore: 0%, probe: off}
fleet: {listen: "${HUB}"}
drain: {answers: 0s, http: 1s, streams: 1s}
admin: {listen: off}
log: {access: off, level: warn}
`

// startFleet runs the fleet of fleetYAML, each node on an address of its own, and waits until it is whole.
func startFleet(t *testing.T) *testFleet {
	t.Helper()
	return startFleetOf(t, fleetYAML)
}

func startFleetOf(t *testing.T, yaml string) *testFleet {
	t.Helper()
	f := &testFleet{t: t, nodes: map[string]*node{}, stop: map[string]context.CancelFunc{}, ended: map[string]chan error{}, origin: newTestOrigin(t)}
	f.http = map[string]string{lax: freeAddr(t, "127.0.0.2"), phx: freeAddr(t, "127.0.0.3"), home: freeAddr(t, "127.0.0.4")}
	f.dns, f.admin = freeAddr(t, "127.0.0.1"), freeAddr(t, "127.0.0.1")
	f.file = filepath.Join(t.TempDir(), "nearzone.yaml")
	f.write(yaml)
	env := map[string]string{
		"DATA": t.TempDir(), "LAX": f.http[lax], "PHX": f.http[phx], "HOME_NODE": f.http[home],
		"DNS": f.dns, "ADMIN": f.admin, "ORIGIN": f.origin.URL, "HUB": freeAddr(t, "127.0.0.4"),
	}
	f.env = env
	for _, zone := range []string{home, lax, phx} {
		f.start(zone)
	}
	f.eventually(10*time.Second, "every node hears of the others", func() bool {
		for _, n := range f.nodes {
			heard := 0
			for _, s := range n.quorum.Status(time.Now()) {
				if s.Up && !s.LastView.IsZero() {
					heard++
				}
			}
			if heard != 3 {
				return false
			}
		}
		return true
	})
	return f
}

func (f *testFleet) write(yaml string) {
	f.t.Helper()
	if err := os.WriteFile(f.file, []byte(yaml), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *testFleet) start(zone string) {
	f.t.Helper()
	lookup := func(name string) (string, bool) {
		if name == "ZONE" {
			return zone, true
		}
		v, ok := f.env[name]
		return v, ok
	}
	load := func() (*config.Config, error) { return config.Load(f.file, config.Options{Zone: zone, Env: lookup}) }
	cfg, err := load()
	if err != nil {
		f.t.Fatal(err)
	}
	n, err := newNode(cfg, nodeOptions{Log: testLog(f.t).With("on", zone), Load: load})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	f.nodes[zone], f.stop[zone], f.ended[zone] = n, cancel, ended
	f.t.Cleanup(func() { f.kill(zone) })
}

// kill ends a node without a word to anyone, as far as a process can do that to a part of itself.
func (f *testFleet) kill(zone string) {
	f.t.Helper()
	cancel, running := f.stop[zone]
	if !running {
		return
	}
	delete(f.stop, zone)
	cancel()
	select {
	case err := <-f.ended[zone]:
		if err != nil {
			f.t.Errorf("%s ended with: %v", zone, err)
		}
	case <-time.After(15 * time.Second):
		f.t.Errorf("%s does not end within 15 s of being told to", zone)
	}
}

func (f *testFleet) eventually(most time.Duration, what string, is func() bool) {
	f.t.Helper()
	for end := time.Now().Add(most); !is(); {
		if time.Now().After(end) {
			f.t.Fatalf("not within %v: %s", most, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// observe gives each zone n samples of a client.
func (f *testFleet) observe(client string, n int, rtt map[string]time.Duration) {
	for zone, d := range rtt {
		for range n {
			f.nodes[zone].estimator.Observe(netip.MustParseAddr(client), d, routing.TCP)
		}
	}
}

// ask resolves a name as the resolver of a client network would, and returns the addresses.
func (f *testFleet) ask(name, subnet string) []string {
	f.t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	if subnet != "" {
		p := netip.MustParsePrefix(subnet)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{
			Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice(),
		})
	}
	in, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(m, f.dns)
	if err != nil {
		f.t.Fatalf("ask %s for %s: %v", f.dns, name, err)
	}
	var addrs []string
	for _, rr := range in.Answer {
		if a, ok := rr.(*dns.A); ok {
			addrs = append(addrs, a.A.String())
		}
	}
	return addrs
}

// zoneOf is the zone that a client network is answered with.
func (f *testFleet) zoneOf(subnet string) string {
	f.t.Helper()
	addrs := f.ask(play, subnet)
	if len(addrs) != 1 {
		f.t.Fatalf("%s from %s: got %v, want one address", play, subnet, addrs)
	}
	for zone, at := range f.http {
		if host, _, _ := net.SplitHostPort(at); host == addrs[0] {
			return zone
		}
	}
	f.t.Fatalf("%s from %s: %s is no node", play, subnet, addrs[0])
	return ""
}

// get fetches a path of play.example.com from a zone.
func (f *testFleet) get(zone, path string) (int, string, http.Header) {
	f.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+f.http[zone]+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Host = play
	res, err := testClient.Do(req)
	if err != nil {
		f.t.Fatalf("GET %s from %s: %v", path, zone, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatalf("GET %s from %s: %v", path, zone, err)
	}
	return res.StatusCode, string(body), res.Header
}

// command runs one command line against the fleet's admin door.
func (f *testFleet) command(args ...string) string {
	f.t.Helper()
	var out, errOut strings.Builder
	if code := run(f.t.Context(), append(args, "--admin", "http://"+f.admin), &out, &errOut); code != 0 {
		f.t.Fatalf("nearzone %v: exit %d\n%s%s", args, code, out.String(), errOut.String())
	}
	return out.String()
}

func (f *testFleet) explain(client string) routing.Explanation {
	f.t.Helper()
	var e routing.Explanation
	if err := json.Unmarshal([]byte(f.command("explain", "--client", client, "--json")), &e); err != nil {
		f.t.Fatal(err)
	}
	return e
}

var testClient = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   30 * time.Second,
}

// freeAddr is an address of host whose port nobody holds now, for TCP and UDP. It is below the ports that the kernel
// gives to connections, which would take it in between.
func freeAddr(t *testing.T, host string) string {
	t.Helper()
	var last error
	for range 100 {
		at := net.JoinHostPort(host, fmt.Sprint(20000+rand.IntN(10000)))
		l, err := net.Listen("tcp", at)
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Skipf("this machine has no %s on loopback: %v", host, err)
		}
		if err != nil {
			last = err
			continue
		}
		l.Close()
		if p, err := net.ListenPacket("udp", at); err == nil {
			p.Close()
			return at
		}
	}
	t.Fatalf("no free port: %v", last)
	return ""
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// testWriter logs through the test, so that lines of a passing test stay unseen.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	defer func() { recover() }() // a line after the test has ended is not worth a panic
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// leaks names the goroutines of libraries that outlive their owners by design.
func leaks() []goleak.Option {
	return []goleak.Option{}
}

// countingDial counts the connections it makes.
func countingDial(made *atomic.Int64) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		made.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}
