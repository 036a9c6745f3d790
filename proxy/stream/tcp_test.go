package stream_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/nearzone/nearzone/config"
)

var tcpMatch = config.Stream{Name: "match", Network: "tcp"}

func TestTCPRelaysBothWaysAndHalfCloses(t *testing.T) {
	server := tcpServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
		all, _ := io.ReadAll(c) // answers only after the client's end
		c.Write([]byte("got "))
		c.Write(all)
	})
	e := start(t, configOf([]config.Stream{tcpMatch}, map[string][]string{"arena": {server}}), nil)
	c := dial(t, "tcp", e.addr("match")).(*net.TCPConn)
	c.Write([]byte("hello"))
	c.CloseWrite()
	if answer, err := io.ReadAll(c); err != nil || string(answer) != "got hello" {
		t.Errorf("answer %q, %v", answer, err)
	}
	eventually(t, "the session is over", func() bool { return e.streams.Sessions() == 0 })
	eventually(t, "it is counted", func() bool { return e.metric("sessions_ended_total", "reason=closed", "stream=match") == 1 })
	if up, down := e.metric("bytes_total", "direction=up"), e.metric("bytes_total", "direction=down"); up < 5 || up > 6 || down < 9 || down > 10 {
		t.Errorf("bytes up %v and down %v, want 5 and 9 (and one for the end, as the kernel counts)", up, down)
	}
}

func TestTCPBytesPassUnchanged(t *testing.T) {
	server := tcpServer(t, "127.0.0.1:0", echo)
	e := start(t, configOf([]config.Stream{tcpMatch}, map[string][]string{"arena": {server}}), nil)
	c := dial(t, "tcp", e.addr("match")).(*net.TCPConn)
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	go func() { c.Write(sent); c.CloseWrite() }()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, equal %v, err %v", len(got), len(sent), bytes.Equal(got, sent), err)
	}
}

func TestTCPIsSplicedByTheKernel(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("splice is Linux's")
	}
	server := tcpServer(t, "127.0.0.1:0", echo)
	e := start(t, configOf([]config.Stream{tcpMatch}, map[string][]string{"arena": {server}}), nil)
	before := pipes(t)
	for range 20 { // more than what net keeps in its pool of pipes
		c := dial(t, "tcp", e.addr("match"))
		if got := ask(t, c, "x", time.Second); got != "x" {
			t.Fatalf("got %q", got)
		}
	}
	if n := pipes(t) - before; n < 40 {
		t.Errorf("%d more pipe descriptors for 20 sessions, want a pipe for each direction", n)
	}
}

func pipes(t *testing.T) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

func TestTCPResetPassesThrough(t *testing.T) {
	server := tcpServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0) // and closes: a reset
	})
	e := start(t, configOf([]config.Stream{tcpMatch}, map[string][]string{"arena": {server}}), nil)
	c := dial(t, "tcp", e.addr("match"))
	c.Write([]byte("x"))
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset: a broken stream must not look complete", err)
	}
	eventually(t, "the session is over", func() bool { return e.streams.Sessions() == 0 })
	eventually(t, "it is counted", func() bool { return e.metric("sessions_ended_total", "reason=reset") == 1 })
}

func TestTCPWithoutServerIsReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	e := start(t, configOf([]config.Stream{tcpMatch, {Name: "lost", Network: "tcp", Origin: "nowhere"}}, map[string][]string{"arena": {l.Addr().String()}}), nil)
	for _, name := range []string{"match", "lost"} {
		c, err := net.Dial("tcp", e.addr(name))
		if err == nil {
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %v, want a reset", name, err)
		}
		eventually(t, "it is counted", func() bool { return e.metric("drops_total", "stream="+name, "reason=no_server") == 1 })
	}
}

func TestTCPCap(t *testing.T) {
	server := tcpServer(t, "127.0.0.1:0", echo)
	st := tcpMatch
	st.MaxSessions = 2
	e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
	one, two := dial(t, "tcp", e.addr("match")), dial(t, "tcp", e.addr("match"))
	for _, c := range []net.Conn{one, two} {
		if got := ask(t, c, "x", time.Second); got != "x" {
			t.Fatalf("got %q", got)
		}
	}
	three := dial(t, "tcp", e.addr("match"))
	three.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := three.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a third session: read %d, %v", n, err)
	}
	eventually(t, "it is counted", func() bool { return e.metric("drops_total", "reason=full") == 1 })
	one.Close()
	eventually(t, "room again", func() bool { return e.streams.Sessions() == 1 })
	if got := ask(t, dial(t, "tcp", e.addr("match")), "x", time.Second); got != "x" {
		t.Errorf("after one has left: %q", got)
	}
}

func TestTCPIdle(t *testing.T) {
	server := tcpServer(t, "127.0.0.1:0", echo)
	st := tcpMatch
	st.Idle.Established = 200 * time.Millisecond
	e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
	c := dial(t, "tcp", e.addr("match"))
	for range 6 { // twice the idle time in all
		<-time.After(70 * time.Millisecond)
		if got := ask(t, c, "x", time.Second); got != "x" {
			t.Fatalf("a session in use was cut: %q", got)
		}
	}
	silent := time.Now()
	c.SetReadDeadline(silent.Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
	if d := time.Since(silent); d < 150*time.Millisecond || d > 2*time.Second {
		t.Errorf("cut after %v of silence, want 200ms", d)
	}
	eventually(t, "it is counted as idle", func() bool { return e.metric("sessions_ended_total", "reason=idle") == 1 })
}

// A receiver that takes its time is not silent, even though the sender has nothing left to send.
func TestTCPSlowReceiverIsNotIdle(t *testing.T) {
	const size = 6 << 20
	server := tcpServer(t, "127.0.0.1:0", func(c *net.TCPConn) { c.Write(make([]byte, size)) })
	st := tcpMatch
	st.Idle.Established = 400 * time.Millisecond
	e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
	c := dial(t, "tcp", e.addr("match")).(*net.TCPConn)
	c.SetReadBuffer(64 << 10)
	got := 0
	for buf := make([]byte, 256<<10); ; <-time.After(40 * time.Millisecond) {
		n, err := c.Read(buf)
		got += n
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
	}
	if got != size {
		t.Errorf("%d bytes of %d", got, size)
	}
}

func TestTCPProxyHeaders(t *testing.T) {
	for _, c := range []struct{ version, listen string }{
		{"v1", "127.0.0.1:0"}, {"v2", "127.0.0.1:0"}, {"v1", "[::1]:0"}, {"v2", "[::1]:0"},
	} {
		t.Run(c.version+" "+c.listen, func(t *testing.T) {
			headers := make(chan *proxyproto.Header, 1)
			server := tcpServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
				r := bufio.NewReader(c)
				h, err := proxyproto.Read(r)
				if err != nil {
					t.Errorf("read header: %v", err)
				}
				headers <- h
				io.Copy(c, r)
			})
			if strings.HasPrefix(c.listen, "[") {
				tcpServer(t, c.listen, echo) // for its skip
			}
			st := tcpMatch
			st.Listen, st.ProxyProtocol = c.listen, c.version
			e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
			conn := dial(t, "tcp", e.addr("match"))
			if got := ask(t, conn, "hello", time.Second); got != "hello" {
				t.Fatalf("payload %q", got)
			}
			h := <-headers
			if int(h.Version) != int(c.version[1]-'0') || h.Command != proxyproto.PROXY ||
				h.SourceAddr.String() != conn.LocalAddr().String() || h.DestinationAddr.String() != conn.RemoteAddr().String() {
				t.Errorf("got %+v, want %v to %v", h, conn.LocalAddr(), conn.RemoteAddr())
			}
		})
	}
}

func TestTCPSamplesTheClientsRoundTrip(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("TCP_INFO is Linux's")
	}
	var mu sync.Mutex
	samples := 0
	server := tcpServer(t, "127.0.0.1:0", echo)
	e := start(t, configOf([]config.Stream{tcpMatch}, map[string][]string{"arena": {server}}), func(client netip.Addr, rtt time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		samples++
		if client != netip.MustParseAddr("127.0.0.1") || rtt <= 0 || rtt > time.Second {
			t.Errorf("sample of %v: %v", client, rtt)
		}
	})
	count := func() int { mu.Lock(); defer mu.Unlock(); return samples }
	c := dial(t, "tcp", e.addr("match"))
	ask(t, c, "x", time.Second)
	eventually(t, "samples while it lasts", func() bool { return count() >= 2 })
	c.Close()
	eventually(t, "the session is over", func() bool { return e.streams.Sessions() == 0 })
	before := count()
	short := dial(t, "tcp", e.addr("match"))
	short.Close()
	eventually(t, "a sample at the end", func() bool { return count() > before })
}
