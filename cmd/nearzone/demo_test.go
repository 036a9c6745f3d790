package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// safeBuffer is a strings.Builder for two goroutines.
type safeBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestDemo runs what the README tells a new user to try.
func TestDemo(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:9180"); err != nil {
		t.Skipf("another program holds the demo's port 9180: %v", err)
	} else {
		l.Close()
	}
	ctx, stop := context.WithCancel(t.Context())
	var out safeBuffer
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"demo"}, &out, &out) }()
	f := &testFleet{t: t, dns: "127.0.0.1:8053", admin: "127.0.0.1:9180",
		http: map[string]string{lax: "127.0.0.2:8080", phx: "127.0.0.3:8080", home: "127.0.0.4:8080"}}

	f.eventually(10*time.Second, "the DNS answers", func() bool {
		_, err := dns.Exchange(new(dns.Msg).SetQuestion(play+".", dns.TypeA), f.dns)
		return err == nil
	})
	f.eventually(10*time.Second, "the two networks get different zones", func() bool {
		return f.zoneOf(inLA) == lax && f.zoneOf(inPHX) == phx
	})
	_, _, first := f.get(lax, "/")
	_, _, second := f.get(lax, "/")
	if a, b := first.Get("Cache-Status"), second.Get("Cache-Status"); !strings.Contains(a, "fwd=uri-miss") || !strings.Contains(b, "hit") {
		t.Errorf("Cache-Status of two GETs: %q, %q", a, b)
	}
	f.command("drain", lax)
	f.eventually(5*time.Second, "drain moves the clients of Los Angeles", func() bool { return f.zoneOf(inLA) != lax })
	f.command("drain", "--undo", lax)
	f.eventually(5*time.Second, "undo brings them back", func() bool { return f.zoneOf(inLA) == lax })
	if status := f.command("status"); !strings.Contains(status, "127.0.0.2:8080") {
		t.Errorf("status does not list the nodes:\n%s", status)
	}
	if res, err := testClient.Get("http://127.0.0.1:9180/metrics"); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("metrics: %v %v", res, err)
	} else {
		res.Body.Close()
	}
	f.eventually(15*time.Second, "the demo says what happens", func() bool { return strings.Count(out.String(), "simulated viewer in") >= 3 })

	stop()
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("the demo ended with %d:\n%s", code, out.String())
		}
	case <-time.After(3 * time.Second):
		t.Error("the demo does not stop within 3 s")
		<-ended
	}
}
