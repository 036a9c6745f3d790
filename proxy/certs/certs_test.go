package certs_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/certs"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// It sleeps for five seconds between two looks at a lock, and ends at the look that finds it gone.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
		// certmagic keeps one rate limiter for each CA and account for as long as the process lives.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"))
}

// logs collects lines.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if os.Getenv("NEARZONE_TEST_LOG") != "" {
		_, _ = os.Stderr.Write(b)
	}
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	a.pool.AddCert(cert)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// write makes a pair of files for names, or replaces one.
func (a *authority) write(t *testing.T, dir, base string, lasts time.Duration, names ...string) config.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(lasts),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := config.Certificate{Cert: filepath.Join(dir, base+".crt"), Key: filepath.Join(dir, base+".key")}
	writeFile(t, files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeFile(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return files
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func siteConfig(hosts ...string) *config.Config {
	return &config.Config{
		Listen: config.Listen{HTTP: ":80", HTTPS: ":443"},
		Sites:  []config.Site{{Name: "play", Hosts: hosts}},
	}
}

func newCerts(t *testing.T, cfg *config.Config) (*certs.Certs, *logs, *prometheus.Registry) {
	t.Helper()
	l, reg := &logs{}, prometheus.NewRegistry()
	c, err := certs.New(cfg, certs.Options{Log: l.logger(), Reg: reg})
	if err != nil {
		t.Fatal(err)
	}
	return c, l, reg
}

// shake makes one handshake in memory and returns the certificate that was shown.
func shake(t *testing.T, c *certs.Certs, sni string) (*x509.Certificate, error) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(server, c.TLSConfig()).Handshake()
		_ = server.Close()
	}()
	conn := tls.Client(client, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
	err := conn.Handshake()
	_ = client.Close()
	<-done
	if err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// shows checks which name the certificate shown for an SNI has first; "" is a refusal.
func shows(t *testing.T, c *certs.Certs, sni, want string) {
	t.Helper()
	cert, err := shake(t, c, sni)
	if want == "" {
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("SNI %q: %v, want the alert unrecognized_name", sni, err)
		}
		return
	}
	if err != nil {
		t.Errorf("SNI %q: %v, want the certificate of %q", sni, err, want)
		return
	}
	if got := append(cert.DNSNames, "?")[0]; got != want {
		t.Errorf("SNI %q: certificate of %q, want %q", sni, got, want)
	}
}

func TestFilesBySNI(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	tests := []struct {
		name  string
		hosts []string
		shown map[string]string // by SNI
	}{
		{"named hosts", []string{"a.example.com", "*.b.example.com"}, map[string]string{
			"": "a.example.com", "a.example.com": "a.example.com", "A.Example.COM": "a.example.com",
			"x.b.example.com": "*.b.example.com", "y.x.b.example.com": "", "b.example.com": "", "other.example.org": "",
		}},
		{"any host", []string{"*"}, map[string]string{
			"": "a.example.com", "x.b.example.com": "*.b.example.com", "other.example.org": "a.example.com",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := siteConfig(tt.hosts...)
			cfg.TLS.Certificates = []config.Certificate{
				ca.write(t, dir, "a", time.Hour, "a.example.com"),
				ca.write(t, dir, "b", time.Hour, "*.b.example.com"),
			}
			c, _, _ := newCerts(t, cfg)
			for sni, want := range tt.shown {
				shows(t, c, sni, want)
			}
		})
	}
}

func TestSelfSigned(t *testing.T) {
	for _, tt := range []struct {
		hosts []string
		shown map[string]string
	}{
		{[]string{"*"}, map[string]string{"": "localhost", "any.example.com": "localhost"}},
		{[]string{"a.example.com", "*.b.example.com"}, map[string]string{
			"": "localhost", "a.example.com": "localhost", "x.b.example.com": "localhost", "c.example.com": "",
		}},
	} {
		cfg := siteConfig(tt.hosts...)
		cfg.TLS.SelfSigned = true
		c, _, _ := newCerts(t, cfg)
		for sni, want := range tt.shown {
			shows(t, c, sni, want)
		}
		cert, err := shake(t, c, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append(tt.hosts, "localhost", "127.0.0.1", "::1") {
			if name = strings.Replace(name, "*.", "x.", 1); name == "*" {
				continue
			}
			if err := cert.VerifyHostname(name); err != nil {
				t.Errorf("the certificate for %v is not for %q: %v", tt.hosts, name, err)
			}
		}
		same := reload(t, c, cfg)
		same()
		if again, err := shake(t, c, ""); err != nil || !again.Equal(cert) {
			t.Errorf("a reload of the same hosts made another certificate (%v)", err)
		}
	}
}

func reload(t *testing.T, c *certs.Certs, cfg *config.Config) func() {
	t.Helper()
	apply, err := c.Reload(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return apply
}

func TestRefusals(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	a, b := ca.write(t, dir, "a", time.Hour, "a.example.com"), ca.write(t, dir, "b", time.Hour, "b.example.com")
	nameless := ca.write(t, dir, "nameless", time.Hour)
	garbage := config.Certificate{Cert: filepath.Join(dir, "garbage"), Key: a.Key}
	writeFile(t, garbage.Cert, []byte("no PEM"))
	files := func(list ...config.Certificate) config.TLS { return config.TLS{Certificates: list} }
	acme := func(a config.ACME) config.TLS { return config.TLS{ACME: &a} }
	tests := []struct {
		name string
		tls  config.TLS
		host string
		want string
	}{
		{"missing certificate", files(a, config.Certificate{Cert: filepath.Join(dir, "none"), Key: a.Key}), "a.example.com", "tls.certificates[1]"},
		{"missing key", files(config.Certificate{Cert: a.Cert, Key: filepath.Join(dir, "none")}), "a.example.com", "none"},
		{"mismatch", files(config.Certificate{Cert: a.Cert, Key: b.Key}), "a.example.com", "does not match"},
		{"garbage", files(garbage), "a.example.com", "tls.certificates[0]"},
		{"no names", files(nameless), "a.example.com", "names no host"},
		{"nothing", config.TLS{}, "a.example.com", "tls.self_signed"},
		{"wildcard by ACME", acme(config.ACME{}), "*.example.com", "DNS-01"},
		{"any host by ACME", acme(config.ACME{}), "*", "names a host"},
		{"private name by ACME", acme(config.ACME{}), "localhost", "no public CA"},
		{"unknown CA", acme(config.ACME{CA: "letsdecrypt"}), "a.example.com", "letsencrypt-staging"},
		{"CA in the clear", acme(config.ACME{CA: "http://ca.example.com/dir"}), "a.example.com", "https URL"},
		{"missing roots", acme(config.ACME{Roots: filepath.Join(dir, "none")}), "a.example.com", "tls.acme.roots"},
		{"roots without any", acme(config.ACME{Roots: garbage.Cert}), "a.example.com", "no certificate in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := siteConfig(tt.host)
			cfg.TLS, cfg.Node.Data = tt.tls, t.TempDir()
			if _, err := certs.New(cfg, certs.Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want an error with %q", err, tt.want)
			}
			good := siteConfig("a.example.com")
			good.TLS = files(a)
			c, _, _ := newCerts(t, good)
			if apply, err := c.Reload(cfg); err == nil || apply != nil {
				t.Error("Reload took it")
			}
			shows(t, c, "a.example.com", "a.example.com")
		})
	}
	cfg := siteConfig("a.example.com")
	cfg.TLS = acme(config.ACME{})
	if _, err := certs.New(cfg, certs.Options{}); err == nil || !strings.Contains(err.Error(), "node.data") {
		t.Errorf("ACME without a directory: %v, want an error that names node.data", err)
	}
}

func TestWarnings(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cfg := siteConfig("a.example.com", "b.example.com")
	cfg.TLS.Certificates = []config.Certificate{ca.write(t, dir, "a", -time.Hour, "a.example.com")}
	c, l, reg := newCerts(t, cfg)
	for _, want := range []string{"certificate has expired", "host=b.example.com"} {
		if !strings.Contains(l.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, l)
		}
	}
	shows(t, c, "a.example.com", "a.example.com")
	shows(t, c, "b.example.com", "")
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metric names: %v %v", problems, err)
	}
}

func TestReloadKeepsSessionsAndChangesNewOnes(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cfg := siteConfig("a.example.com")
	cfg.TLS.Certificates = []config.Certificate{ca.write(t, dir, "a", time.Hour, "a.example.com")}
	c, _, _ := newCerts(t, cfg)
	server := c.TLSConfig()
	next := siteConfig("b.example.com")
	next.TLS.Certificates = []config.Certificate{ca.write(t, dir, "b", time.Hour, "b.example.com")}
	apply := reload(t, c, next)
	shows(t, c, "a.example.com", "a.example.com")
	apply()
	shows(t, c, "a.example.com", "")
	shows(t, c, "b.example.com", "b.example.com")
	cert, err := server.GetCertificate(&tls.ClientHelloInfo{ServerName: "b.example.com"})
	if err != nil || cert.Leaf.DNSNames[0] != "b.example.com" {
		t.Errorf("an earlier TLSConfig does not follow: %v", err)
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newAuthority(t), t.TempDir()
		cfg := siteConfig("a.example.com", "*")
		cfg.TLS.Certificates = []config.Certificate{ca.write(t, dir, "a", time.Hour, "a.example.com")}
		c, l, reg := newCerts(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		defer func() { cancel(); <-ended }()

		ca.write(t, dir, "a", 2*time.Hour, "new.example.com")
		time.Sleep(11 * time.Second)
		shows(t, c, "a.example.com", "new.example.com")

		writeFile(t, cfg.TLS.Certificates[0].Cert, []byte("half a certific"))
		time.Sleep(31 * time.Second)
		shows(t, c, "", "new.example.com")
		if n := strings.Count(l.String(), "is not usable"); n != 1 {
			t.Errorf("the damage is said %d times, want once:\n%s", n, l)
		}
		if err := os.Remove(cfg.TLS.Certificates[0].Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		shows(t, c, "", "new.example.com")

		ca.write(t, dir, "a", 3*time.Hour, "third.example.com")
		time.Sleep(11 * time.Second)
		shows(t, c, "", "third.example.com")
		if err := testutil.GatherAndCompare(reg, strings.NewReader("# HELP nearzone_certs_file_errors_total Times a changed certificate file was not usable.\n# TYPE nearzone_certs_file_errors_total counter\nnearzone_certs_file_errors_total 2\n"), "nearzone_certs_file_errors_total"); err != nil {
			t.Error(err)
		}
	})
}

// TestNoCertificateYet: the CA is away. Handshakes of the name fail, at once and with a reason in the log.
func TestNoCertificateYet(t *testing.T) {
	cfg := siteConfig("a.example.com", "*")
	cfg.Node.Data = t.TempDir()
	cfg.TLS.ACME = &config.ACME{CA: "https://127.0.0.1:1/dir"}
	c, l, _ := newCerts(t, cfg)
	run(t, c)
	for _, sni := range []string{"a.example.com", "", "x.example.com"} {
		if cert, err := shake(t, c, sni); err == nil {
			t.Errorf("SNI %q: got the certificate of %q", sni, cert.DNSNames)
		}
	}
	if n := strings.Count(l.String(), "no certificate yet"); n != 1 {
		t.Errorf("said %d times, want once a minute:\n%s", n, l)
	}
	withTrial := *cfg
	withTrial.TLS.SelfSigned = true
	reload(t, c, &withTrial)()
	shows(t, c, "a.example.com", "localhost")
}

// run starts c and ends it with the test.
func run(t *testing.T, c *certs.Certs) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}
