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
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

func reload(t *testing.T, c *certs.Certs, cfg *config.Config) func() {
	t.Helper()
	apply, err := c.Reload(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return apply
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
