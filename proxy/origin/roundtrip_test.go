package origin_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/nearzone/nearzone/proxy/origin"
)

// overEach runs a test against a handler over HTTP/1.1, h2c, and HTTP/1.1 and 2 with TLS.
func overEach(t *testing.T, h http.HandlerFunc, test func(t *testing.T, p *origin.Pool, proto string)) {
	for _, tc := range []struct {
		name, scheme, proto string
		protocols           func(*http.Protocols)
	}{
		{"h1", "http", "HTTP/1.1", func(p *http.Protocols) { p.SetHTTP1(true) }},
		{"h2c", "h2c", "HTTP/2.0", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }},
		{"https h1", "https", "HTTP/1.1", func(p *http.Protocols) { p.SetHTTP1(true) }},
		{"https h2", "https", "HTTP/2.0", func(p *http.Protocols) { p.SetHTTP2(true); p.SetHTTP1(true) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(h)
			srv.Config.Protocols = new(http.Protocols)
			tc.protocols(srv.Config.Protocols)
			o := app()
			if tc.scheme == "https" {
				srv.EnableHTTP2 = tc.proto == "HTTP/2.0"
				srv.StartTLS()
				o.TLS.CA, o.TLS.ServerName = caFile(t, srv), "example.com"
			} else {
				srv.Start()
			}
			t.Cleanup(srv.Close)
			o.Servers = app(tc.scheme + "://" + srv.Listener.Addr().String()).Servers
			test(t, pool(t, o), tc.proto)
		})
	}
}

// caFile writes the certificate of a test server as a root.
func caFile(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRequestArrivesAsSent(t *testing.T) {
	type seen struct {
		method, uri, host, proto, body string
		header                         http.Header
	}
	var got seen
	overEach(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.RequestURI, r.Host, r.Proto, string(b), r.Header}
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "short and stout")
	}, func(t *testing.T, p *origin.Pool, proto string) {
		req := request(t, http.MethodPost, strings.NewReader("tea"))
		req.Header.Set("Te", "trailers")
		req.Header.Set("X-Question", "why")
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusTeapot || string(body) != "short and stout" || resp.Header.Get("X-Answer") != "yes" {
			t.Errorf("response = %v %q %v, %v", resp.StatusCode, body, resp.Header, err)
		}
		want := seen{"POST", "/a/b?c=d", "play.example.com", proto, "tea", got.header}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("server got %v, want %v", got, want)
		}
		for name, value := range map[string]string{"Te": "trailers", "X-Question": "why", "User-Agent": "", "Accept-Encoding": ""} {
			if v := got.header.Get(name); v != value {
				t.Errorf("server got %s: %q, want %q", name, v, value)
			}
		}
		if req.URL.Host != "play.example.com" || resp.Request != req {
			t.Errorf("the caller's request was changed: %v", req.URL)
		}
	})
}

func TestHostOfTheConfiguration(t *testing.T) {
	o := app(serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }))
	o.Host = "internal.example.net"
	if _, body, err := get(t, pool(t, o)); err != nil || body != "internal.example.net" {
		t.Errorf("host = %q, %v", body, err)
	}
}

// TestStreamingBothWays is a call of gRPC's shape: messages go back and forth while both bodies are open, and
// the outcome comes in a trailer.
func TestStreamingBothWays(t *testing.T) {
	overEach(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if r.ProtoMajor == 1 {
			if err := c.EnableFullDuplex(); err != nil {
				panic(err)
			}
		}
		w.Header().Set("Trailer", "Grpc-Status")
		c.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, "echo", lines.Text())
			c.Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	}, func(t *testing.T, p *origin.Pool, _ string) {
		r, w := io.Pipe()
		req := request(t, http.MethodPost, r)
		req.Header.Set("Te", "trailers")
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for i := range 5 {
			fmt.Fprintln(w, i)
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
				t.Fatalf("message %d came back as %q, %v", i, line, err)
			}
		}
		w.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
			t.Errorf("rest = %q, %v", rest, err)
		}
		if got := resp.Trailer.Get("Grpc-Status"); got != "0" {
			t.Errorf("trailer Grpc-Status = %q, want 0", got)
		}
	})
}

func TestInformationalResponsesPass(t *testing.T) {
	overEach(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	}, func(t *testing.T, p *origin.Pool, _ string) {
		var hints []string
		req := request(t, http.MethodGet, nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
				return nil
			},
		}))
		status, _, err := do(t, p, req)
		if err != nil || status != http.StatusOK || len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload" {
			t.Errorf("status %d, hints %q, %v", status, hints, err)
		}
	})
}

func TestExpectContinueHoldsTheBodyBack(t *testing.T) {
	p := pool(t, app(serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Refuse") != "" {
			w.WriteHeader(http.StatusRequestEntityTooLarge) // without reading: no 100 is sent
			return
		}
		io.Copy(w, r.Body)
	})))
	var read atomic.Bool
	body := readerFunc(func(p []byte) (int, error) {
		if read.Swap(true) {
			return 0, io.EOF
		}
		return copy(p, "hello"), nil
	})
	req := request(t, http.MethodPut, body)
	req.ContentLength = 5
	req.Header.Set("Expect", "100-continue")
	req.Header.Set("X-Refuse", "1")
	if status, _, err := do(t, p, req); err != nil || status != http.StatusRequestEntityTooLarge || read.Load() {
		t.Errorf("refused: status %d, %v, body read %v", status, err, read.Load())
	}
	req.Header.Del("X-Refuse")
	req.Body = io.NopCloser(body)
	if _, got, err := do(t, p, req); err != nil || got != "hello" {
		t.Errorf("accepted: %q, %v", got, err)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestWebSocketThroughReverseProxy(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, msg, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, msg) != nil {
				return
			}
		}
	}
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.HandlerFunc(echo))
			srv.EnableHTTP2 = true // and still the upgrade goes over HTTP/1.1
			o := app()
			if scheme == "https" {
				srv.StartTLS()
				o.TLS.CA, o.TLS.ServerName = caFile(t, srv), "example.com"
			} else {
				srv.Start()
			}
			defer srv.Close()
			o.Servers = app(srv.URL).Servers
			o.Timeouts.Idle = 20 * time.Millisecond // of bodies, not of upgraded connections
			p := pool(t, o)
			edge := httptest.NewServer(&httputil.ReverseProxy{Transport: p, Rewrite: func(*httputil.ProxyRequest) {}})
			defer edge.Close()

			c, _, err := websocket.Dial(t.Context(), edge.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			for _, msg := range []string{"one", "two"} {
				time.Sleep(50 * time.Millisecond) // silence longer than the idle time, not a wait for anything
				if err := c.Write(t.Context(), websocket.MessageText, []byte(msg)); err != nil {
					t.Fatal(err)
				}
				if _, got, err := c.Read(t.Context()); err != nil || string(got) != msg {
					t.Fatalf("echo of %q = %q, %v", msg, got, err)
				}
			}
			if n := p.Status()[0].InFlight; n != 1 {
				t.Errorf("in flight = %d, want 1", n)
			}
			c.Close(websocket.StatusNormalClosure, "")
			eventually(t, "nothing is in flight", func() bool { return p.Status()[0].InFlight == 0 })
		})
	}
}

func TestCallersContextEndsTheRequest(t *testing.T) {
	overEach(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // not an end of its own
	}, func(t *testing.T, p *origin.Pool, _ string) {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := p.RoundTrip(request(t, http.MethodGet, nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("read after cancel: %v", err)
		}
		resp.Body.Close()
		if _, err := p.RoundTrip(request(t, http.MethodGet, nil).WithContext(ctx)); !errors.Is(err, context.Canceled) || errors.Is(err, origin.ErrNoServer) {
			t.Errorf("request after cancel: %v", err)
		}
		if !p.Up() || p.Status()[0].InFlight != 0 {
			t.Errorf("status = %+v, want up and nothing in flight", p.Status())
		}
	})
}

func TestConnectionsAreReused(t *testing.T) {
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ConnState = countNew(&conns)
	srv.Start()
	defer srv.Close()
	p := pool(t, app(srv.URL))
	for range 10 {
		if _, _, err := get(t, p); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 10 requests", n)
	}
}

func countNew(n *atomic.Int32) func(net.Conn, http.ConnState) {
	return func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			n.Add(1)
		}
	}
}

func TestLargeBodyAndManyAtOnce(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	overEach(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	}, func(t *testing.T, p *origin.Pool, _ string) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, got, err := do(t, p, request(t, http.MethodPost, bytes.NewReader(payload))); err != nil || got != string(payload) {
					t.Errorf("echo of %d bytes: %d bytes, %v", len(payload), len(got), err)
				}
			})
		}
		wg.Wait()
	})
}

var _ http.RoundTripper = (*origin.Pool)(nil)
