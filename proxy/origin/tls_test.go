package origin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

func TestTLSVerification(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.ServerName)
	}))
	srv.Config.ErrorLog = nil
	defer srv.Close()
	ca := caFile(t, srv) // for example.com and 127.0.0.1
	for _, tc := range []struct {
		name string
		tls  config.OriginTLS
		want string // body, or part of the error
	}{
		{"unknown authority", config.OriginTLS{Verify: true}, "unknown authority (see origins.app.tls: server_name, ca, verify)"},
		{"known authority", config.OriginTLS{Verify: true, CA: ca}, ""},
		{"wrong name", config.OriginTLS{Verify: true, CA: ca, ServerName: "wrong.test"}, "not wrong.test (see origins.app.tls"},
		{"right name", config.OriginTLS{Verify: true, CA: ca, ServerName: "example.com"}, "example.com"},
		{"not verified", config.OriginTLS{ServerName: "any.test"}, "any.test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := app(srv.URL)
			o.TLS = tc.tls
			_, got, err := get(t, pool(t, o))
			switch {
			case err == nil && got != tc.want:
				t.Errorf("got %q, want %q", got, tc.want)
			case err != nil && (tc.want == "" || !strings.Contains(err.Error(), tc.want) || !errors.Is(err, origin.ErrConnect)):
				t.Errorf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestClientCertificate(t *testing.T) {
	cert, key := keyPair(t)
	roots := x509.NewCertPool()
	if b, err := os.ReadFile(cert); err != nil || !roots.AppendCertsFromPEM(b) {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	srv.StartTLS()
	defer srv.Close()
	o := app(srv.URL)
	o.TLS = config.OriginTLS{Verify: true, CA: caFile(t, srv), Cert: cert, Key: key}
	if _, got, err := get(t, pool(t, o)); err != nil || got != "edge" {
		t.Errorf("with a certificate: %q, %v", got, err)
	}
	o.TLS.Cert, o.TLS.Key = "", ""
	if _, got, err := get(t, pool(t, o)); err == nil {
		t.Errorf("without a certificate: %q, want an error", got)
	}
}

func TestTLSFilesAreRequired(t *testing.T) {
	cert, key := keyPair(t)
	gone := filepath.Join(t.TempDir(), "gone.pem")
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		tls  config.OriginTLS
		says []string
	}{
		{config.OriginTLS{CA: gone}, []string{"origins.app.tls.ca", gone, "no such file"}},
		{config.OriginTLS{CA: junk}, []string{"origins.app.tls.ca", junk, "no certificate"}},
		{config.OriginTLS{Cert: gone, Key: key}, []string{"origins.app.tls.cert", gone}},
		{config.OriginTLS{Cert: cert, Key: gone}, []string{"origins.app.tls.key", gone}},
		{config.OriginTLS{Cert: cert}, []string{"origins.app.tls.key"}},
		{config.OriginTLS{Cert: cert, Key: junk}, []string{"origins.app.tls", junk}},
	} {
		o := app("https://192.0.2.1:443")
		o.TLS = tc.tls
		_, err := origin.New(configOf(o), origin.Deps{})
		for _, part := range tc.says {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%+v: %v, want it to name %q", tc.tls, err, part)
			}
		}
	}
}

// keyPair writes a self-signed client certificate for "edge".
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "edge"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
