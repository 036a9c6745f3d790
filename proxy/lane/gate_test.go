package lane_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/nearzone/nearzone/proxy/lane"
)

// reply reads one response and its body.
func reply(t *testing.T, br *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	res.Body.Close()
	return res, string(body)
}

func TestHeadLimits(t *testing.T) {
	const limit = 8 << 10
	pad := func(n int) string { return strings.Repeat("a", n) }
	fixed := len("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: \r\n\r\n")
	for _, tc := range []struct{ name, sent, codes string }{
		{"exactly the limit", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + pad(limit-fixed) + "\r\n\r\n", "200"},
		{"one more", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + pad(limit-fixed+1) + "\r\n\r\n", "431"},
		{"many fields", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Y: z\r\n", limit/8) + "\r\n", "431"},
		{"far too much", "GET / HTTP/1.1\r\nHost: x\r\nX: " + pad(20*limit) + "\r\n\r\n", "431"},
		{"endless target", "GET /" + pad(2*limit), "414"},
		{"long target", "GET /" + pad(limit/2) + " HTTP/1.0\r\n\r\n", "200"},
	} {
		for _, split := range []int{0, 997} {
			e := serve(t, lane.Options{MaxHead: limit}, nil)
			c := dial(t, e.addr)
			go send(c, tc.sent, split)
			if got := answers(c); got != tc.codes {
				t.Errorf("%s (split %d): answered %q, want %q", tc.name, split, got, tc.codes)
			}
		}
	}
}

func TestHeadTimeout(t *testing.T) {
	for _, tc := range []struct{ name, sent, codes string }{
		{"nothing", "", ""},
		{"a part of the first", "GET / HT", "408"},
		{"a part of the second", "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\n", "200 408"},
		{"an empty line", "\r\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := serve(t, lane.Options{HeadTimeout: 100 * time.Millisecond}, nil)
			c := dial(t, e.addr)
			send(c, tc.sent, 0)
			if got := answers(c); got != tc.codes {
				t.Errorf("answered %q, want %q", got, tc.codes)
			}
		})
	}
}

func TestIdleIsNotAHead(t *testing.T) {
	e := serve(t, lane.Options{HeadTimeout: 50 * time.Millisecond}, nil)
	c := dial(t, e.addr)
	br := bufio.NewReader(c)
	for range 3 {
		send(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 0)
		reply(t, br)
		// A silent connection outlives the head's clock: nothing may arrive in this time, the end least of all.
		c.SetReadDeadline(time.Now().Add(120 * time.Millisecond))
		if b, err := br.ReadByte(); err == nil || err == io.EOF {
			t.Fatalf("idle connection: read %q, %v", b, err)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
	}
}

// TestHold: what is sent ahead does not reach net/http, and does not hide a disconnect, while a handler runs.
func TestHold(t *testing.T) {
	begun, release, gone := make(chan string, 2), make(chan struct{}), make(chan struct{}, 1)
	e := serve(t, lane.Options{MaxHead: 16 << 10}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- r.URL.Path
		select {
		case <-release:
		case <-r.Context().Done():
			gone <- struct{}{}
		}
	}))

	t.Run("a refused request waits for its turn", func(t *testing.T) {
		c := dial(t, e.addr)
		send(c, "GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\nHost: x\n\n", 0)
		<-begun
		release <- struct{}{}
		if got := answers(c); got != "200 400" {
			t.Errorf("answered %q, want the first answer whole, then 400", got)
		}
	})
	t.Run("more than the gate holds", func(t *testing.T) {
		c := dial(t, e.addr)
		go send(c, "GET /first HTTP/1.1\r\nHost: x\r\n\r\n"+strings.Repeat("GET /more HTTP/1.1\r\nHost: x\r\n\r\n", 1000)+next, 0)
		go func() {
			for range 1002 {
				<-begun
				release <- struct{}{}
			}
		}()
		if got := strings.Count(answers(c), "200"); got != 1002 {
			t.Errorf("%d answers, want 1002", got)
		}
	})
	t.Run("a disconnect is noticed behind what was sent ahead", func(t *testing.T) {
		c := dial(t, e.addr)
		send(c, "GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n", 0)
		<-begun
		c.Close()
		<-gone
	})
}

func TestExpectContinue(t *testing.T) {
	e := serve(t, lane.Options{}, nil)
	c := dial(t, e.addr)
	br := bufio.NewReader(c)
	send(c, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 0)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != http.StatusContinue {
		t.Fatalf("first answer: %v, %v, want 100", res, err)
	}
	send(c, "hello"+next, 0)
	if _, body := reply(t, br); body != "POST /a 5\n" {
		t.Errorf("body %q", body)
	}
	if _, body := reply(t, br); body != "GET /next 0\n" {
		t.Errorf("body %q", body)
	}
}

// TestBodyLeftUnread: a handler that answers without reading the body never makes the body a request.
func TestBodyLeftUnread(t *testing.T) {
	for _, size := range []int{100, 1 << 20} {
		e := serve(t, lane.Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/smuggled" {
				t.Error("the body was read as a request")
			}
		}))
		c := dial(t, e.addr)
		smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
		body := strings.Repeat(smuggled, size/len(smuggled))
		go send(c, fmt.Sprintf("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)+next, 0)
		got := answers(c)
		if want := map[int]string{100: "200 200", 1 << 20: "200"}[size]; got != want {
			t.Errorf("%d bytes: answered %q, want %q", size, got, want)
		}
	}
}

// echoUpgrade switches protocols and echoes, after it has let the client send ahead.
func echoUpgrade(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if code != http.StatusSwitchingProtocols {
			w.WriteHeader(code)
			return
		}
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		brw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		brw.Flush()
		io.Copy(c, c)
	}
}

func TestUpgradeIsTransparent(t *testing.T) {
	e := serve(t, lane.Options{}, echoUpgrade(http.StatusSwitchingProtocols))
	c := dial(t, e.addr)
	// What is no HTTP at all is sent with the request already, and more of it after the switch.
	send(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n\x00\nearly\r\r", 0)
	br := bufio.NewReader(c)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer: %v, %v, want 101", res, err)
	}
	send(c, "\nlate\x00", 0)
	got := make([]byte, len("\x00\nearly\r\r\nlate\x00"))
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "\x00\nearly\r\r\nlate\x00" {
		t.Errorf("echoed %q, %v", got, err)
	}
}

// TestUpgradeRefused is Pingora's CVE-2026-2833: an Upgrade that is answered with 200 changes nothing.
func TestUpgradeRefused(t *testing.T) {
	e := serve(t, lane.Options{}, echoUpgrade(http.StatusOK))
	c := dial(t, e.addr)
	send(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nGET /smuggled HTTP/1.1\nHost: x\n\n", 0)
	if got := answers(c); got != "200 400" {
		t.Errorf("answered %q, want 200 400", got)
	}
}

func TestHTTP2ByPriorKnowledge(t *testing.T) {
	for _, enabled := range []bool{true, false} {
		e := serve(t, lane.Options{H2C: enabled}, nil)
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr, Timeout: 5 * time.Second}
		res, err := client.Post("http://"+e.addr+"/a", "text/plain", strings.NewReader("hello"))
		if !enabled {
			if err == nil {
				t.Errorf("HTTP/2 was served although it is off")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.ProtoMajor != 2 || string(body) != "POST /a 5\n" {
			t.Errorf("%s: %q", res.Proto, body)
		}
		// HTTP/1 is still gated on the same listener.
		c := dial(t, e.addr)
		send(c, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+next, 1)
		if got := answers(c); got != "400" {
			t.Errorf("HTTP/1 beside HTTP/2: answered %q, want 400", got)
		}
	}
}

// handshaken accepts TLS connections when their handshake is over.
type handshaken struct{ net.Listener }

func (l handshaken) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*tls.Conn).Handshake()
	}
	return c, err
}

// TestTLS: the gate sits inside TLS, net/http still knows of it, and HTTP/2 by prior knowledge is not for it.
func TestTLS(t *testing.T) {
	source := httptest.NewTLSServer(http.NotFoundHandler())
	defer source.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gate := lane.NewGate(lane.Options{H2C: true})
	srv := &http.Server{ConnState: gate.ConnState, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS != nil && r.TLS.HandshakeComplete)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(gate.Listener(handshaken{tls.NewListener(ln, &tls.Config{Certificates: source.TLS.Certificates})}))
	}()
	defer func() { srv.Close(); <-done }()
	for _, tc := range []struct{ sent, want string }{
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported"},
		{"GET / HTTP/1.1\nHost: x\n\n", "HTTP/1.1 400 Bad Request"},
	} {
		c := tls.Client(dial(t, ln.Addr().String()), &tls.Config{InsecureSkipVerify: true})
		send(c, tc.sent, 0)
		all, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(all), tc.want) {
			t.Errorf("%q: answered %q, want %q", tc.sent, all, tc.want)
		}
		if strings.HasPrefix(tc.want, "HTTP/1.1 200") && !strings.HasSuffix(string(all), "true") {
			t.Errorf("Request.TLS is not set: %q", all)
		}
	}
}

func TestShutdownAndCloseWakeTheGate(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gate := lane.NewGate(lane.Options{MaxHead: 1 << 10})
	begun, ended := make(chan struct{}), make(chan struct{})
	srv := &http.Server{ConnState: gate.ConnState, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(gate.Listener(ln)) }()
	c := dial(t, ln.Addr().String())
	go send(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"+strings.Repeat("x", 1<<20), 0) // fills what the gate holds
	<-begun
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := srv.Shutdown(ctx); err == nil {
		t.Error("Shutdown did not wait for the handler")
	}
	srv.Close()
	<-ended
	<-done
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	e := serve(t, lane.Options{Reg: reg}, nil)
	c := dial(t, e.addr)
	send(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost : x\r\n\r\n", 0)
	answers(c)
	want := "# HELP nearzone_lane_requests_total HTTP/1 request heads that the gate let through.\n" +
		"# TYPE nearzone_lane_requests_total counter\nnearzone_lane_requests_total 1\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "nearzone_lane_requests_total"); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var refused float64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "nearzone_lane_refused_requests_total" && m.GetLabel()[0].GetValue() == "space_before_colon" {
				refused = m.GetCounter().GetValue()
			}
		}
	}
	if refused != 1 {
		t.Errorf("refused{space_before_colon} = %v, want 1", refused)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// net/http goes on to the next request after a read deadline that ended in the middle of a body. What comes then is
// the rest of the body, whatever it looks like.
func TestBodyThatTimedOutIsNoRequest(t *testing.T) {
	e := &edge{}
	given := make(chan struct{})
	e.addr = serve(t, lane.Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/first" {
			e.ServeHTTP(w, r)
			return
		}
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		rc.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := r.Body.Read(make([]byte, 100)); err == nil {
			_, err = r.Body.Read(make([]byte, 100))
			t.Logf("body: %v", err)
		}
		close(given)
	})).addr
	c := dial(t, e.addr)
	rest := "GET /inside HTTP/1.1\r\nHost: x\r\n\r\n"
	fmt.Fprintf(c, "POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nhalf", 4+len(rest))
	<-given
	io.WriteString(c, rest)
	if got := answers(c); got != "200" {
		t.Errorf("answered %q, want 200 alone", got)
	}
	if seen := e.requests(); len(seen) > 0 {
		t.Errorf("the rest of a body was taken for %q", seen)
	}
}
