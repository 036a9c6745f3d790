package certs_test

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/certs"
)

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
