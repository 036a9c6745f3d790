package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy"
)

// withTLS adds listen.https to an edge.
func withTLS(t *testing.T, cfg *config.Config) (change func(*proxy.Deps)) {
	t.Helper()
	cfg.Listen.HTTPS = "127.0.0.1:0"
	cfg.TLS = config.TLS{Certificates: []config.Certificate{writeCertificate(t, t.TempDir())}}
	return func(d *proxy.Deps) { d.Certs = newCerts(t, cfg) }
}

// secureClient speaks HTTP/1.1 or HTTP/2 over TLS.
func (e *edge) secureClient(h2 bool) *http.Client {
	c := e.client()
	tr := c.Transport.(*http.Transport)
	tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, ServerName: "play.example.com"}
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	return c
}

// h2cClient speaks HTTP/2 without TLS.
func (e *edge) h2cClient() *http.Client {
	c := e.client()
	tr := c.Transport.(*http.Transport)
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
	return c
}

// everyProtocol runs f over HTTP/1.1 and HTTP/2, clear and TLS.
func everyProtocol(t *testing.T, e *edge, f func(t *testing.T, c *http.Client, base string, major int)) {
	for _, p := range []struct {
		name  string
		c     *http.Client
		base  string
		major int
	}{
		{"h1", e.client(), "http://" + e.addr, 1},
		{"h1 TLS", e.secureClient(false), "https://" + e.secure, 1},
		{"h2 TLS", e.secureClient(true), "https://" + e.secure, 2},
		{"h2 clear", e.h2cClient(), "http://" + e.addr, 2},
	} {
		t.Run(p.name, func(t *testing.T) { f(t, p.c, p.base, p.major) })
	}
}

func TestEveryProtocol(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cached" {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		w.Header().Set("Trailer", "X-Sum")
		echo(w, r)
		w.Header().Set("X-Sum", "1")
	})
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, major int) {
		large := strings.Repeat("0123456789abcdef", 1<<16)
		for _, tc := range []struct{ method, path, body string }{
			{"GET", "/cached", ""}, {"GET", "/cached", ""}, {"GET", "/api/x?y=z", ""}, {"POST", "/api/x", large}, {"HEAD", "/api/x", ""},
		} {
			r, err := http.NewRequest(tc.method, base+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "play.example.com"
			res, body := e.do(c, r)
			if res.StatusCode != 200 || res.ProtoMajor != major {
				t.Fatalf("%s %s: %s %d %q", tc.method, tc.path, res.Proto, res.StatusCode, body)
			}
			if tc.method == "HEAD" {
				continue
			}
			if !strings.Contains(body, tc.body) {
				t.Errorf("%s %s: the body did not arrive", tc.method, tc.path)
			}
			if tc.path == "/api/x" && (res.Trailer.Get("X-Sum") != "1" || !strings.Contains(body, fmt.Sprintf(`"Via":["%d.`, major))) {
				t.Errorf("%s %s: trailer %v, %.300s", tc.method, tc.path, res.Trailer, body)
			}
			scheme, _, _ := strings.Cut(base, ":")
			if tc.path != "/cached" && !strings.Contains(body, `"X-Forwarded-Proto":["`+scheme+`"]`) {
				t.Errorf("%s %s: X-Forwarded-Proto is not %s", tc.method, tc.path, scheme)
			}
		}
		r, _ := http.NewRequest("GET", base+"/x", nil)
		r.Host = "unknown.example"
		if res, _ := e.do(c, r); res.StatusCode != 421 {
			t.Errorf("unknown host: %d, want 421", res.StatusCode)
		}
	})
	var tlsLines int
	eventually(t, "the log tells TLS", func() bool {
		tlsLines = strings.Count(e.access.String(), `"tls":"TLS 1.3"`)
		return tlsLines == 12
	})
}

// TestSchemesAreKeptApart: what was stored over https is not served over http.
func TestSchemesAreKeptApart(t *testing.T) {
	var asked atomic.Int32
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
	})
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, _ int) {
		r, _ := http.NewRequest("GET", base+"/cached", nil)
		r.Host = "play.example.com"
		if _, body := e.do(c, r); !strings.HasPrefix(base, body+":") {
			t.Errorf("%s served what is for %s", base, body)
		}
	})
	if asked.Load() != 2 {
		t.Errorf("the origin was asked %d times, want twice", asked.Load())
	}
}

func TestHTTPOnTheTLSPort(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	c, err := net.Dial("tcp", e.secure)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: play.example.com\r\n\r\n")
	if got, _ := io.ReadAll(c); !strings.Contains(string(got), "400 Bad Request") || !strings.Contains(string(got), "HTTPS") {
		t.Errorf("answered %q", got)
	}
	if got := e.metric("nearzone_proxy_refused_connections_total{reason=tls}"); got != 1 {
		t.Errorf("refused{tls} = %v", got)
	}
}

func TestWebSocket(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"game"}})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for {
			kind, data, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			if ws.Write(r.Context(), kind, append([]byte("echo "), data...)) != nil {
				return
			}
		}
	})
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	for _, url := range []string{"http://" + e.addr + "/cached/ws", "http://" + e.addr + "/api/ws", "https://" + e.secure + "/api/ws"} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ws, res, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: e.secureClient(false), Host: "play.example.com", Subprotocols: []string{"game"}})
		if err != nil {
			t.Fatalf("%s: %v, %v", url, err, res)
		}
		if ws.Subprotocol() != "game" {
			t.Errorf("%s: subprotocol %q", url, ws.Subprotocol())
		}
		large := bytes.Repeat([]byte("x"), 30<<10)
		for range 20 {
			if err := ws.Write(ctx, websocket.MessageBinary, large); err != nil {
				t.Fatal(err)
			}
			if _, got, err := ws.Read(ctx); err != nil || len(got) != len(large)+5 {
				t.Fatalf("%s: %d bytes, %v", url, len(got), err)
			}
		}
		ws.Close(websocket.StatusNormalClosure, "")
	}
	eventually(t, "the log has the upgrades", func() bool {
		return strings.Count(e.access.String(), `"status":101`) == 3 && strings.Contains(e.access.String(), `"reason":"upgrade"`)
	})
}

func TestSilentTunnelEnds(t *testing.T) {
	ended := make(chan struct{})
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		brw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		brw.Flush()
		io.Copy(io.Discard, c)
		close(ended)
	})
	cfg := app(t, o.URL)
	cfg.Sites[0].Upgrade = 100 * time.Millisecond
	e := start(t, cfg)
	got := e.raw("GET /api/x HTTP/1.1\r\nHost: play.example.com\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 101") {
		t.Errorf("%q", got)
	}
	<-ended
}

// grpcOrigin serves the health service over HTTP/2 without TLS.
func grpcOrigin(t *testing.T) (addr string, h *health.Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		grpc.SetTrailer(ctx, metadata.Pairs("x-after", "1"))
		return next(ctx, req)
	}))
	h = health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ln) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return ln.Addr().String(), h
}

func TestGRPC(t *testing.T) {
	addr, h := grpcOrigin(t)
	cfg := app(t, "http://"+addr)
	cfg.Origins[0].Servers[0].Scheme = "h2c"
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	for name, tc := range map[string]struct {
		addr  string
		creds credentials.TransportCredentials
	}{
		"h2c": {e.addr, insecure.NewCredentials()},
		"TLS": {e.secure, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})},
	} {
		t.Run(name, func(t *testing.T) {
			cc, err := grpc.NewClient("passthrough:///"+tc.addr, grpc.WithTransportCredentials(tc.creds), grpc.WithAuthority("play.example.com"))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			client := grpc_health_v1.NewHealthClient(cc)
			var trailer metadata.MD
			res, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Trailer(&trailer))
			if err != nil || res.Status != grpc_health_v1.HealthCheckResponse_SERVING || len(trailer["x-after"]) != 1 {
				t.Fatalf("Check: %v, %v, trailer %v", res, err, trailer)
			}
			if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "none"}); status.Code(err).String() != "NotFound" {
				t.Errorf("Check of an unknown service: %v, want NotFound", err)
			}
			watchHealth(ctx, t, client, h, "game over "+name)
		})
	}
}

// watchHealth proves that messages of a stream arrive one by one.
func watchHealth(ctx context.Context, t *testing.T, client grpc_health_v1.HealthClient, h *health.Server, service string) {
	t.Helper()
	stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		if want != grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
			h.SetServingStatus(service, want)
		}
		got, err := stream.Recv()
		if err != nil || got.Status != want {
			t.Fatalf("Watch: %v, %v, want %v", got, err, want)
		}
	}
}

// TestStreamingBothWays: bytes of either direction arrive while the other is still open.
func TestStreamingBothWays(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			w.Write(bytes.ToUpper(buf[:n]))
			rc.Flush()
			if err != nil {
				return
			}
		}
	})
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, _ int) {
		pr, pw := io.Pipe()
		r, _ := http.NewRequest("POST", base+"/api/x", pr)
		r.Host = "play.example.com"
		go io.WriteString(pw, "first")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for _, word := range []string{"first", "second", "third"} {
			if word != "first" {
				go io.WriteString(pw, word)
			}
			got := make([]byte, len(word))
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != strings.ToUpper(word) {
				t.Fatalf("got %q, %v, want %s", got, err, word)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
			t.Errorf("at the end: %q, %v", rest, err)
		}
	})
}

func TestHTTP2Limits(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	c := e.secureClient(true)
	r, _ := http.NewRequest("GET", "https://"+e.secure+"/api/x", nil)
	r.Host = "play.example.com"
	r.Header.Set("X-Large", strings.Repeat("x", 80<<10))
	res, err := c.Do(r)
	if err == nil {
		res.Body.Close()
		if res.StatusCode != 431 {
			t.Errorf("a head of 80 KiB: %d, want 431", res.StatusCode)
		}
	}
	r, _ = http.NewRequest("CONNECT", "https://"+e.secure, nil)
	r.Host = "play.example.com:443"
	if res, err := c.Do(r); err == nil {
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Errorf("CONNECT: %d, want 400", res.StatusCode)
		}
	}
}
