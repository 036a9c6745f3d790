package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/certs"
)

// pebble is Let's Encrypt's test CA, with validation of challenges on.
type pebble struct {
	t         *testing.T
	dir       string
	ca        *authority // of its own door
	directory string
	roots     string
	manage    string
	client    *http.Client
	binary    string
	config    string
	dns       string
	cmd       *exec.Cmd
}

// findPebble skips the test where the CA is not installed.
func findPebble(t *testing.T) string {
	t.Helper()
	name := os.Getenv("NEARZONE_PEBBLE")
	if name == "" {
		name = "pebble"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("no pebble: go install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1, or set NEARZONE_PEBBLE")
	}
	return path
}

// newPebble prepares a CA that asks for challenges at these ports of 127.0.0.1 and issues for this long.
func newPebble(t *testing.T, httpPort, tlsPort int, life time.Duration) *pebble {
	t.Helper()
	p := &pebble{t: t, binary: findPebble(t), dir: t.TempDir(), ca: newAuthority(t), dns: answerDNS(t)}
	door, managed := freePort(t), freePort(t)
	files := p.ca.write(t, p.dir, "door", time.Hour, "localhost", "127.0.0.1")
	p.roots, p.config = filepath.Join(p.dir, "roots.pem"), filepath.Join(p.dir, "pebble.json")
	writeFile(t, p.roots, p.ca.pem)
	p.directory = fmt.Sprintf("https://127.0.0.1:%d/dir", door)
	p.manage = fmt.Sprintf("https://127.0.0.1:%d", managed)
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", door), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", managed),
		"certificate": files.Cert, "privateKey": files.Key, "httpPort": httpPort, "tlsPort": tlsPort, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "test", "validityPeriod": int(life.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, p.config, text)
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.ca.pool}, DisableKeepAlives: true}}
	p.start()
	return p
}

func (p *pebble) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.binary, "-config", p.config, "-dnsserver", p.dns, "-strict")
	p.cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_VA_ALWAYS_VALID=0", "PEBBLE_WFE_NONCEREJECT=50")
	out, err := os.OpenFile(filepath.Join(p.dir, "pebble.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	_ = out.Close()
	p.t.Cleanup(p.stop)
	eventually(p.t, "the CA answers", func() bool { return p.pool() != nil })
}

func (p *pebble) stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// pool is the root of what it issues, new at each start; nil while it does not answer.
func (p *pebble) pool() *x509.CertPool {
	resp, err := p.client.Get(p.manage + "/roots/0")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	block, _ := pem.Decode(text)
	if err != nil || block == nil {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// answerDNS serves DNS in which every name is this machine. Pebble asks over TCP.
func answerDNS(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	s := &dns.Server{Listener: l, NotifyStartedFunc: func() { close(ready) }, Handler: dns.HandlerFunc(everyNameIsHere)}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-ended
	})
	return l.Addr().String()
}

func everyNameIsHere(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1),
		})
	}
	_ = w.WriteMsg(m)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// edge is the two listeners of a node.
type edge struct{ http, tls net.Listener }

func newEdge(t *testing.T) edge {
	t.Helper()
	var e edge
	for _, l := range []*net.Listener{&e.http, &e.tls} {
		var err error
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*l).Close() })
	}
	return e
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// serve answers on both listeners until the test ends, with the Certs it was last given.
func (e edge) serve(t *testing.T, c *certs.Certs) (change func(*certs.Certs)) {
	t.Helper()
	var now atomic.Pointer[certs.Certs]
	now.Store(c)
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now.Load().HTTPChallenge(hello).ServeHTTP(w, r) })
	secure := c.TLSConfig()
	secure.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Load().TLSConfig(), nil }
	servers := []*http.Server{
		{Handler: plain, ReadHeaderTimeout: 5 * time.Second},
		{Handler: hello, TLSConfig: secure, ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(io.Discard, "", 0)},
	}
	ended := make(chan error, 2)
	go func() { ended <- servers[0].Serve(e.http) }()
	go func() { ended <- servers[1].ServeTLS(e.tls, "", "") }()
	t.Cleanup(func() {
		for _, s := range servers {
			_ = s.Close()
			<-ended
		}
	})
	return now.Store
}

// shown is the certificate that a client which trusts the CA alone is shown.
func (e edge) shown(host string, pool *x509.CertPool) (*x509.Certificate, error) {
	c, err := tls.Dial("tcp", e.tls.Addr().String(), &tls.Config{ServerName: host, RootCAs: pool})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestACME(t *testing.T) {
	findPebble(t)
	for name, only := range map[string]struct{ http, tls bool }{
		"HTTP-01":               {http: true},
		"TLS-ALPN-01":           {tls: true},
		"whichever comes first": {http: true, tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			httpPort, tlsPort := freePort(t), freePort(t) // where nobody answers
			if only.http {
				httpPort = port(e.http)
			}
			if only.tls {
				tlsPort = port(e.tls)
			}
			ca := newPebble(t, httpPort, tlsPort, time.Hour)
			hosts := []string{"play.example.com", "match.example.com"}
			cfg := siteConfig(append(slices.Clone(hosts), "*")...)
			cfg.Node.Data = t.TempDir()
			cfg.TLS.ACME = &config.ACME{Email: "ops@example.com", CA: ca.directory, Roots: ca.roots}
			cfg.Listen = config.Listen{HTTPS: e.tls.Addr().String()}
			if only.http {
				cfg.Listen.HTTP = e.http.Addr().String()
			}
			c, l, _ := newCerts(t, cfg)
			e.serve(t, c)
			run(t, c)
			pool := ca.pool()
			for _, host := range hosts {
				eventually(t, "a certificate for "+host, func() bool {
					_, err := e.shown(host, pool)
					return err == nil
				})
			}
			if cert, err := shake(t, c, ""); err != nil || cert.VerifyHostname(hosts[0]) != nil {
				t.Errorf("without SNI: %v, want the certificate of %q", err, hosts[0])
			}
			if t.Failed() {
				t.Log(l.String())
			}
			checkPlain(t, e)

			next := *cfg
			next.Sites = []config.Site{{Name: "play", Hosts: []string{hosts[0], "late.example.com"}}}
			reload(t, c, &next)()
			eventually(t, "a host that came by reload", func() bool {
				_, err := e.shown("late.example.com", pool)
				return err == nil
			})
			if _, err := e.shown(hosts[1], pool); err == nil {
				t.Errorf("%q has left and is still served", hosts[1])
			}
		})
	}
}

// checkPlain: what is no challenge goes through.
func checkPlain(t *testing.T, e edge) {
	t.Helper()
	for _, path := range []string{"/", "/.well-known/acme-challenge/unknown"} {
		resp, err := http.Get("http://" + e.http.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(text) != "hello" {
			t.Errorf("GET %s = %q, want what the site says", path, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestACMEKeepsWhatItHas: a restart needs no CA, and a damaged file is ordered anew.
func TestACMEKeepsWhatItHas(t *testing.T) {
	findPebble(t)
	e := newEdge(t)
	ca := newPebble(t, port(e.http), port(e.tls), time.Hour)
	cfg := siteConfig("play.example.com")
	cfg.Node.Data = t.TempDir()
	cfg.TLS.ACME = &config.ACME{CA: ca.directory, Roots: ca.roots}
	cfg.Listen = config.Listen{HTTP: e.http.Addr().String(), HTTPS: e.tls.Addr().String()}

	var change func(*certs.Certs)
	first := during(t, cfg, func(c *certs.Certs) *x509.Certificate {
		change = e.serve(t, c)
		return waitShown(t, c)
	})
	found, err := filepath.Glob(filepath.Join(cfg.Node.Data, "certs", "certificates", "*", "play.example.com", "*.crt"))
	if err != nil || len(found) != 1 {
		t.Fatalf("stored certificates: %v %v", found, err)
	}
	writeFile(t, found[0], []byte("damaged"))
	second := during(t, cfg, func(c *certs.Certs) *x509.Certificate {
		change(c)
		return waitShown(t, c)
	})
	if second.Equal(first) {
		t.Error("the damaged certificate is shown")
	}

	ca.stop()
	third := during(t, cfg, func(c *certs.Certs) *x509.Certificate { return waitShown(t, c) })
	if !third.Equal(second) {
		t.Error("after a restart without the CA another certificate is shown")
	}
}

// during runs a Certs while fn looks at it.
func during(t *testing.T, cfg *config.Config, fn func(*certs.Certs) *x509.Certificate) *x509.Certificate {
	t.Helper()
	c, _, _ := newCerts(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	return fn(c)
}

func waitShown(t *testing.T, c *certs.Certs) *x509.Certificate {
	t.Helper()
	var cert *x509.Certificate
	eventually(t, "a certificate", func() bool {
		var err error
		cert, err = shake(t, c, "play.example.com")
		return err == nil
	})
	return cert
}

// TestACMERenews: a certificate of half a minute is replaced, and no handshake in between fails.
func TestACMERenews(t *testing.T) {
	findPebble(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	e := newEdge(t)
	ca := newPebble(t, port(e.http), port(e.tls), 45*time.Second)
	cfg := siteConfig("play.example.com")
	cfg.Node.Data = t.TempDir()
	cfg.TLS.ACME = &config.ACME{CA: ca.directory, Roots: ca.roots}
	cfg.Listen = config.Listen{HTTP: e.http.Addr().String(), HTTPS: e.tls.Addr().String()}
	pool := ca.pool()
	during(t, cfg, func(c *certs.Certs) *x509.Certificate {
		e.serve(t, c)
		first := waitShown(t, c)
		eventually(t, "another certificate", func() bool {
			cert, err := e.shown("play.example.com", pool)
			if err != nil {
				t.Fatalf("a handshake failed before the renewal: %v", err)
			}
			return !cert.Equal(first)
		})
		t.Logf("renewed %v before the old one expires", time.Until(first.NotAfter).Round(time.Second))
		return first
	})
}
