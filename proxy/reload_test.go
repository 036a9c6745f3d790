package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy"
)

// reload takes cfg into use in all parts of an edge.
func (e *edge) reload(cfg *config.Config) error {
	swapOrigins, err := e.origins.Reload(cfg)
	if err != nil {
		return err
	}
	swap, err := e.Reload(cfg)
	if err != nil {
		return err
	}
	swapOrigins()
	swap()
	return nil
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	for {
		kind, data, err := ws.Read(r.Context())
		if err != nil || ws.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}

// TestReloadUnderLoad: 20 reloads while 50 connections and a WebSocket run: no error, no disconnect.
func TestReloadUnderLoad(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			echoWebSocket(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1")
		io.WriteString(w, "ok")
	})
	cfg := app(t, o.URL)
	cfg.Listen.HTTP = fixedPort(t)
	e := start(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+e.addr+"/ws", &websocket.DialOptions{Host: "play.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()

	var wg sync.WaitGroup
	var requests atomic.Int64
	stop := make(chan struct{})
	for i := range 50 {
		c := e.dial()
		wg.Go(func() {
			br := bufio.NewReader(c)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: play.example.com\r\n\r\n", (i+n)%7)
				res, err := http.ReadResponse(br, nil)
				if err != nil || res.StatusCode != 200 {
					t.Errorf("connection %d, request %d: %v, %v", i, n, res, err)
					return
				}
				io.Copy(io.Discard, res.Body)
				requests.Add(1)
			}
		})
	}
	for i := range 20 {
		next := app(t, o.URL)
		next.Listen.HTTP = cfg.Listen.HTTP
		next.Sites[0].Hosts = append(next.Sites[0].Hosts, fmt.Sprintf("new-%d.example", i))
		if err := e.reload(next); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
		word := []byte(fmt.Sprint("after reload ", i))
		if err := ws.Write(ctx, websocket.MessageText, word); err != nil {
			t.Fatalf("WebSocket after reload %d: %v", i, err)
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != string(word) {
			t.Fatalf("WebSocket after reload %d: %q, %v", i, got, err)
		}
		before := requests.Load()
		eventually(t, "requests go on", func() bool { return requests.Load() > before+20 || t.Failed() })
	}
	close(stop)
	wg.Wait()
	if res, _ := e.do(e.client(), e.request("GET", "/", "", "Host", "new-19.example")); res.StatusCode != 200 {
		t.Errorf("the last configuration is not in use: %d", res.StatusCode)
	}
	if res, _ := e.do(e.client(), e.request("GET", "/", "", "Host", "new-18.example")); res.StatusCode != 421 {
		t.Errorf("an earlier configuration is still in use: %d", res.StatusCode)
	}
}

// fixedPort is an address that was free a moment ago, and stays the same in every configuration.
func fixedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestReloadMovesListeners(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Listen.HTTP = fixedPort(t)
	e := start(t, cfg)
	old := e.dial()
	br := bufio.NewReader(old)
	ask := func() int {
		fmt.Fprint(old, "GET /api/x HTTP/1.1\r\nHost: play.example.com\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("the old connection: %v", err)
		}
		io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	ask()

	next := app(t, o.URL)
	next.Listen.HTTP = fixedPort(t)
	if err := e.reload(next); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != 200 {
		t.Errorf("a connection to the old address: %d", got)
	}
	if c, err := net.Dial("tcp", cfg.Listen.HTTP); err == nil {
		c.Close()
		t.Error("the old address is still listened on")
	}
	e.addr = next.Listen.HTTP
	if res, _ := e.do(e.client(), e.request("GET", "/api/x", "")); res.StatusCode != 200 {
		t.Errorf("the new address: %d", res.StatusCode)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Listen.HTTP = fixedPort(t)
	e := start(t, cfg)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, change := range map[string]func(*config.Config){
		"a port that is taken": func(c *config.Config) { c.Listen.HTTP = taken.Addr().String() },
		"no certificates":      func(c *config.Config) { c.Listen.HTTPS = "127.0.0.1:0" },
	} {
		next := app(t, o.URL)
		next.Listen.HTTP = cfg.Listen.HTTP
		next.Sites[0].Hosts = []string{"other.example"}
		change(next)
		if _, err := e.Reload(next); err == nil {
			t.Errorf("%s: no error", name)
		}
		if res, _ := e.do(e.client(), e.request("GET", "/api/x", "")); res.StatusCode != 200 {
			t.Errorf("%s: the old configuration answers %d", name, res.StatusCode)
		}
	}
}

// TestReloadGivenUp: another part of the node refused the configuration, so apply was never called.
func TestReloadGivenUp(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Listen.HTTP = fixedPort(t)
	e := start(t, cfg)
	next := app(t, o.URL)
	next.Listen.HTTP = fixedPort(t)
	if _, err := e.Reload(next); err != nil {
		t.Fatal(err)
	}
	if err := e.reload(next); err != nil {
		t.Fatalf("the second attempt: %v", err)
	}
	e.addr = next.Listen.HTTP
	if res, _ := e.do(e.client(), e.request("GET", "/api/x", "")); res.StatusCode != 200 {
		t.Errorf("the new address: %d", res.StatusCode)
	}
	e.stop()
	if _, err := e.Reload(cfg); err == nil {
		t.Error("Reload after the end gave no error")
	}
}

func TestListenNamesTheKey(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := config.Default()
	cfg.Listen.HTTP = taken.Addr().String()
	_, err = proxy.Listen(cfg, proxy.Deps{})
	if err == nil || !strings.Contains(err.Error(), "listen.http") || !strings.Contains(err.Error(), cfg.Listen.HTTP) {
		t.Errorf("Listen: %v", err)
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestDrain(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	tlsOn := withTLS(t, cfg)
	e := start(t, cfg, tlsOn)
	for i, want := range []int{200, 503, 200} {
		switch i {
		case 1:
			e.Drain()
		case 2:
			e.Undrain()
		}
		everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, major int) {
			r, _ := http.NewRequest("GET", base+"/.nearzone/health", nil)
			if res, body := e.do(c, r); res.StatusCode != want || want == 503 && body != "draining\n" {
				t.Errorf("health: %d %q, want %d", res.StatusCode, body, want)
			}
			r, _ = http.NewRequest("GET", base+"/api/x", nil)
			r.Host = "play.example.com"
			res, _ := e.do(c, r)
			if res.StatusCode != 200 || major == 1 && res.Close != (want == 503) {
				t.Errorf("a request: %d, close %v", res.StatusCode, res.Close)
			}
		})
	}
}

// TestDrainSendsGoaway: an HTTP/2 client opens another connection for its next request.
func TestDrainSendsGoaway(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL))
	c := e.h2cClient()
	ask := func() { e.do(c, e.request("GET", "/api/x", "")) }
	accepted := func() float64 { return e.metric("nearzone_proxy_accepted_connections_total{transport=tcp}") }
	ask()
	ask()
	if got := accepted(); got != 1 {
		t.Fatalf("%v connections for two requests", got)
	}
	e.Drain()
	ask()
	eventually(t, "the connection is left", func() bool {
		ask()
		return accepted() > 1
	})
}

// TestStop: what is under way ends well, what does not end is cut at drain.http.
func TestStop(t *testing.T) {
	t.Run("a request under way finishes", func(t *testing.T) {
		begun, release := make(chan struct{}), make(chan struct{})
		o := serve(t, func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-release
			io.WriteString(w, "whole")
		})
		e := start(t, app(t, o.URL))
		got := make(chan string)
		go func() {
			res, err := e.client().Do(e.request("GET", "/api/x", ""))
			if err != nil {
				got <- err.Error()
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			got <- string(body)
		}()
		<-begun
		idle := e.dial() // nobody waits for a connection without a request
		stopped := make(chan struct{})
		go func() { e.stop(); close(stopped) }()
		if all, err := io.ReadAll(idle); err != nil || len(all) > 0 {
			t.Errorf("the idle connection got %q, %v", all, err)
		}
		select {
		case <-stopped:
			t.Error("Run ended before the request")
		default:
		}
		close(release)
		if body := <-got; body != "whole" {
			t.Errorf("got %q", body)
		}
		<-stopped
	})
	t.Run("idle connections hold nothing up", func(t *testing.T) {
		o := serve(t, echo)
		cfg := app(t, o.URL)
		tlsOn := withTLS(t, cfg)
		e := start(t, cfg, tlsOn)
		everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, _ int) {
			r, _ := http.NewRequest("GET", base+"/.nearzone/health", nil)
			e.do(c, r)
		})
		began := time.Now()
		e.stop()
		if took := time.Since(began); took > 2500*time.Millisecond {
			t.Errorf("Run ended after %v", took)
		}
	})
	t.Run("a tunnel is waited for, then cut", func(t *testing.T) {
		o := serve(t, echoWebSocket)
		cfg := app(t, o.URL)
		cfg.Drain.HTTP = 200 * time.Millisecond
		e := start(t, cfg)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ws, _, err := websocket.Dial(ctx, "ws://"+e.addr+"/", &websocket.DialOptions{Host: "play.example.com"})
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		began := time.Now()
		stopped := make(chan struct{})
		go func() { e.stop(); close(stopped) }()
		eventually(t, "the listener is closed", func() bool {
			c, err := net.Dial("tcp", e.addr)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		if err := ws.Write(ctx, websocket.MessageText, []byte("still here")); err != nil {
			t.Errorf("the tunnel was cut at once: %v", err)
		} else if _, got, err := ws.Read(ctx); err != nil || string(got) != "still here" {
			t.Errorf("the tunnel was cut at once: %q, %v", got, err)
		}
		<-stopped
		if took := time.Since(began); took < cfg.Drain.HTTP || took > 5*time.Second {
			t.Errorf("Run ended after %v, want drain.http of %v", took, cfg.Drain.HTTP)
		}
		if _, _, err := ws.Read(ctx); err == nil {
			t.Error("the tunnel is still open")
		}
	})
}

// Origins change a moment before the edge does. Requests of that moment go by the old configuration.
func TestReloadLosesNoRequestToARemovedOrigin(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL))
	e.do(e.client(), e.request("GET", "/api/x", ""))
	next := app(t, o.URL)
	next.Origins[0].Name = "renamed"
	for i := range next.Sites[0].Routes {
		next.Sites[0].Routes[i].Origin = "renamed"
	}
	apply, err := e.origins.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if res, body := e.do(e.client(), e.request("GET", "/api/x", "")); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
