package healthcheck_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearzone/nearzone/healthcheck"
)

func TestHTTPProbe(t *testing.T) {
	var status atomic.Int32
	var host atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host.Store(r.Host)
		if s := int(status.Load()); s == http.StatusFound {
			http.Redirect(w, r, "http://192.0.2.1/", s)
		} else {
			w.WriteHeader(s)
		}
	}))
	defer srv.Close()
	probe := healthcheck.HTTP(srv.URL+"/healthz", healthcheck.ProbeOptions{Host: "app.example.com"})
	for code, want := range map[int32]bool{200: true, 204: true, 302: true, 304: true, 400: false, 404: false, 500: false, 503: false} {
		status.Store(code)
		if err := probe(t.Context()); (err == nil) != want {
			t.Errorf("status %d: %v, want pass = %v", code, err, want)
		}
	}
	if host.Load() != "app.example.com" {
		t.Errorf("Host = %v, want app.example.com", host.Load())
	}
}

func TestHTTPProbeMakesAConnectionEachTime(t *testing.T) {
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	probe := healthcheck.HTTP(srv.URL, healthcheck.ProbeOptions{})
	for range 3 {
		if err := probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections for 3 probes", n)
	}
}

func TestHTTPProbeOfTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	if err := healthcheck.HTTP(srv.URL, healthcheck.ProbeOptions{})(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown certificate: %v, want an error about it", err)
	}
	if err := healthcheck.HTTP(srv.URL, healthcheck.ProbeOptions{AnyCertificate: true})(t.Context()); err != nil {
		t.Errorf("any certificate: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	config := &tls.Config{RootCAs: roots, ServerName: "example.com"}
	if err := healthcheck.HTTP(srv.URL, healthcheck.ProbeOptions{TLS: config})(t.Context()); err != nil {
		t.Errorf("known root: %v", err)
	}
}

func TestHTTPProbeOfH2C(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
		}
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	defer srv.Close()
	if err := healthcheck.HTTP(srv.URL, healthcheck.ProbeOptions{H2C: true})(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProbesEndWithTheirContext(t *testing.T) {
	silent := listen(t) // accepts by the kernel's backlog alone, and says nothing
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := healthcheck.HTTP("http://"+silent, healthcheck.ProbeOptions{})(ctx); err == nil {
		t.Error("a silent server passed")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the probe took %v, want about 50ms", took)
	}
}

func TestTCPProbe(t *testing.T) {
	open := listen(t)
	var rtt time.Duration
	c := healthcheck.NewChecker(nil, nil)
	c.Set([]healthcheck.Target{{ID: "a", Probe: healthcheck.TCP(open, healthcheck.ProbeOptions{})}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for deadline := time.Now().Add(5 * time.Second); rtt == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		rtt = c.Status()[0].RTT
	}
	cancel()
	<-done
	if rtt <= 0 || rtt > time.Second {
		t.Errorf("RTT = %v, want that of loopback", rtt)
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if err := healthcheck.TCP(gone.Addr().String(), healthcheck.ProbeOptions{})(t.Context()); err == nil {
		t.Error("a closed port passed")
	}
}

func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
