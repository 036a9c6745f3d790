package proxy_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/nearzone/nearzone/proxy"
)

func TestSlowClients(t *testing.T) {
	endless := bytes.Repeat([]byte("x"), 1<<20)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/early" {
			c, _, _ := w.(http.Hijacker).Hijack()
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			io.Copy(io.Discard, c)
			return
		}
		io.Copy(io.Discard, r.Body)
		if r.URL.Path != "/api/endless" {
			io.WriteString(w, "small")
			return
		}
		for {
			if _, err := w.Write(endless); err != nil {
				return
			}
		}
	})
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	limits := proxy.Limits{Head: 200 * time.Millisecond, Handshake: 200 * time.Millisecond, Idle: 300 * time.Millisecond, Body: 200 * time.Millisecond, Stall: 300 * time.Millisecond}
	e := start(t, cfg, tlsOn, func(d *proxy.Deps) { d.Limits = limits })
	for _, tc := range []struct{ name, sent, codes string }{
		{"nothing", "", ""},
		{"half a head", "GET / HTTP/1.1\r\nHost:", "408"},
		{"idle after a request", "GET /api/x HTTP/1.1\r\nHost: play.example.com\r\n\r\n", "200"},
		{"half a body", "POST /api/x HTTP/1.1\r\nHost: play.example.com\r\nContent-Length: 10\r\n\r\nhalf", "408"},
		{"half a body nobody reads", "POST / HTTP/1.1\r\nHost: unknown.example.com\r\nContent-Length: 10\r\n\r\nhalf", "421"},
		{"no body for us", "GET /.nearzone/health HTTP/1.1\r\nHost: play.example.com\r\nTransfer-Encoding: chunked\r\n\r\n", "200"},
		{"half a body the origin does not read", "POST /api/early HTTP/1.1\r\nHost: play.example.com\r\nContent-Length: 10\r\n\r\nhalf", "200"},
		{"half a body said to be gRPC", "POST /api/x HTTP/1.1\r\nHost: play.example.com\r\nContent-Type: application/grpc\r\nContent-Length: 10\r\n\r\nhalf", "408"},
		{"half a chunk", "POST /cached HTTP/1.1\r\nHost: play.example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", "408"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := e.dial()
			io.WriteString(c, tc.sent)
			if got := answersOn(c); got != tc.codes {
				t.Errorf("answered %q, want %q", got, tc.codes)
			}
		})
	}
	t.Run("zero window", func(t *testing.T) {
		for _, path := range []string{"/.nearzone/health", "/api/x", "/small"} {
			h := e.h2raw(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			if code := h.reset(h.open("GET", path, true)); code != http2.ErrCodeInternal {
				t.Errorf("%s: reset with %v, want INTERNAL_ERROR", path, code)
			}
		}
	})
	t.Run("TLS handshake", func(t *testing.T) {
		c, err := net.Dial("tcp", e.secure)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("read %q, %v, want the end", got, err)
		}
	})
	t.Run("takes nothing", func(t *testing.T) {
		everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, _ int) {
			given := func() int { return strings.Count(e.access.String(), "/api/endless") }
			before := given()
			r, _ := http.NewRequest("GET", base+"/api/endless", nil)
			r.Host = "play.example.com"
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			eventually(t, "the request is given up", func() bool { return given() > before })
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("the cut answer looks whole")
			}
		})
	})
	t.Run("slow but alive", func(t *testing.T) {
		c := e.dial()
		io.WriteString(c, "POST /api/x HTTP/1.1\r\nHost: play.example.com\r\nContent-Length: 10\r\nConnection: close\r\n\r\n")
		tick := time.NewTicker(limits.Body / 2)
		defer tick.Stop()
		for range 10 {
			<-tick.C
			io.WriteString(c, "x")
		}
		if got := answersOn(c); got != "200" {
			t.Errorf("answered %q, want 200", got)
		}
	})
}

func TestConnectionCap(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL), func(d *proxy.Deps) { d.Limits.Conns = 3 })
	var conns []net.Conn
	for range 3 {
		conns = append(conns, e.dial())
	}
	eventually(t, "three connections", func() bool { return e.metric("nearzone_proxy_connections{transport=tcp}") == 3 })
	if got := e.raw("GET /.nearzone/health HTTP/1.1\r\nHost: x\r\n\r\n"); got != "" {
		t.Errorf("the fourth connection was answered: %q", got)
	}
	conns[0].Close()
	eventually(t, "there is room again", func() bool { return e.metric("nearzone_proxy_connections{transport=tcp}") == 2 })
	if got := e.raw("GET /.nearzone/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("with room again: %q", got)
	}
}

// A gRPC stream may pause for as long as an upgraded connection, and only while its server is silent, too.
func TestSilentGRPCEnds(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range 12 {
			if r.URL.Path == "/api/talk" {
				io.WriteString(w, "x")
				rc.Flush()
			}
			<-tick.C
		}
		if r.URL.Path != "/api/talk" {
			io.Copy(io.Discard, r.Body)
		}
	})
	cfg := app(t, o.URL)
	cfg.Sites[0].Upgrade = 300 * time.Millisecond
	e := start(t, cfg, func(d *proxy.Deps) { d.Limits.Body = 10 * time.Millisecond })
	post := func(path string) (*http.Response, string) {
		body, _ := io.Pipe()
		defer body.Close()
		r := e.request("POST", path, "", "Content-Type", "application/grpc")
		r.Body = body
		return e.do(e.h2cClient(), r)
	}
	if res, body := post("/api/talk"); res.StatusCode != 200 || len(body) != 12 {
		t.Errorf("the client is silent, the server not: %d %q", res.StatusCode, body)
	}
	if res, _ := post("/api/silent"); res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("both are silent: %d, want 408", res.StatusCode)
	}
}

func TestRequestCap(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 2)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) { held <- struct{}{}; <-hold })
	e := start(t, app(t, o.URL), func(d *proxy.Deps) { d.Limits.Requests = 2 })
	c := e.h2cClient()
	done := make(chan int, 2)
	for range 2 {
		go func() {
			res, err := c.Do(e.request("GET", "/api/x", ""))
			if err != nil {
				done <- 0
				return
			}
			res.Body.Close()
			done <- res.StatusCode
		}()
		<-held
	}
	if res, _ := e.do(c, e.request("GET", "/api/x", "")); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("the third request: %d %v, want 503 and when to come again", res.StatusCode, res.Header)
	}
	if res, _ := e.do(c, e.request("GET", "/.nearzone/health", "")); res.StatusCode != 200 {
		t.Errorf("health: %d, want 200", res.StatusCode)
	}
	close(hold)
	for range 2 {
		if got := <-done; got != 200 {
			t.Errorf("a request under way: %d, want 200", got)
		}
	}
}
