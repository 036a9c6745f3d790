package stream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
	"github.com/nearzone/nearzone/proxy/stream"
)

func newReader(b []byte) *bufio.Reader { return bufio.NewReaderSize(bytes.NewReader(b), 1<<16) }

// free is an address that nobody listens on.
func free(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// world has a TCP and a UDP stream to the origin `one`, and servers in `two` to move to.
type world struct {
	*edge
	origins map[string][]string
	tcp     string
	udp     string
}

func newWorld(t *testing.T) *world {
	w := &world{origins: map[string][]string{}, tcp: free(t, "tcp"), udp: free(t, "udp")}
	for _, name := range []string{"one", "two"} {
		_, addr := arena(t, name, "127.0.0.1:0")
		w.origins[name] = []string{addr}
		w.origins[name+"-tcp"] = []string{tcpServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
			for r := bufio.NewScanner(c); r.Scan(); {
				io.WriteString(c, name+":"+r.Text()+"\n")
			}
		})}
	}
	w.edge = start(t, w.config("one", w.tcp, w.udp), nil)
	return w
}

// config serves an origin on addresses; an empty one leaves that stream out.
func (w *world) config(origin, tcp, udp string) *config.Config {
	var streams []config.Stream
	if tcp != "" {
		streams = append(streams, config.Stream{Name: "lobby", Network: "tcp", Listen: tcp, Origin: origin + "-tcp"})
	}
	if udp != "" {
		streams = append(streams, config.Stream{Name: "match", Network: "udp", Listen: udp, Origin: origin})
	}
	return configOf(streams, w.origins)
}

// players are one client of each stream.
type players struct{ tcp, udp net.Conn }

func (w *world) join(t *testing.T) players {
	return players{dial(t, "tcp", w.addr("lobby")), dial(t, "udp", w.addr("match"))}
}

func (p players) expect(t *testing.T, when, server string) {
	t.Helper()
	if got := ask(t, p.tcp, "x\n", soon); got != server+":x\n" {
		t.Errorf("%s: the tcp player got %q, want server %s", when, got, server)
	}
	if got := ask(t, p.udp, "x", soon); got != server+":x" {
		t.Errorf("%s: the udp player got %q, want server %s", when, got, server)
	}
}

func TestReloadKeepsSessionsAndNewOnesGoByTheNewConfiguration(t *testing.T) {
	w := newWorld(t)
	old := w.join(t)
	old.expect(t, "before", "one")
	for range 20 {
		w.reload(w.config("two", w.tcp, w.udp))
		old.expect(t, "after a reload", "one")
	}
	w.join(t).expect(t, "a new player", "two")
	if n := w.streams.Sessions(); n != 4 {
		t.Errorf("%d sessions, want 4", n)
	}
}

func TestReloadMovesAStreamAndKeepsItsSessions(t *testing.T) {
	w := newWorld(t)
	old := w.join(t)
	old.expect(t, "before", "one")
	tcp, udp := free(t, "tcp"), free(t, "udp")
	w.reload(w.config("two", tcp, udp))
	old.expect(t, "at the old address", "one")
	moved := w.join(t)
	moved.expect(t, "at the new address", "two")
	if c, err := net.Dial("tcp", w.tcp); err == nil {
		c.Close()
		t.Error("the old address still accepts")
	}
	if got := ask(t, dial(t, "udp", w.udp), "x", 100*time.Millisecond); strings.Contains(got, ":x") {
		t.Errorf("the old address took a new session: %q", got)
	}

	w.reload(w.config("one", w.tcp, w.udp)) // and back, while the old sessions hold the old socket
	old.expect(t, "after moving back", "one")
	moved.expect(t, "after moving back", "two")
	w.join(t).expect(t, "a new player", "one")
}

func TestReloadEndsSessionsOfRemovedStreams(t *testing.T) {
	w := newWorld(t)
	old := w.join(t)
	old.expect(t, "before", "one")
	w.reload(w.config("one", "", w.udp))
	eventually(t, "the tcp session is over", func() bool { return w.streams.Sessions() == 1 })
	if got := ask(t, old.udp, "x", soon); got != "one:x" {
		t.Errorf("the stream that stays got %q", got)
	}
	w.reload(w.config("one", "", ""))
	eventually(t, "the udp session is over", func() bool { return w.streams.Sessions() == 0 })
	eventually(t, "both are counted", func() bool { return w.metric("sessions_ended_total", "reason=removed") == 2 })
	packetSocket(t, w.udp) // the address is free again
}

func TestReloadThatFailsChangesNothing(t *testing.T) {
	w := newWorld(t)
	old := w.join(t)
	old.expect(t, "before", "one")
	taken := packetSocket(t, "127.0.0.1:0").LocalAddr().String()
	tcp := free(t, "tcp")
	if _, err := w.streams.Reload(w.config("two", tcp, taken)); err == nil || !strings.Contains(err.Error(), "streams.match.listen") {
		t.Fatalf("got %v, want an error that names streams.match.listen", err)
	}
	old.expect(t, "after the failure", "one")
	w.join(t).expect(t, "a new player after the failure", "one")
	twice := w.config("one", w.tcp, w.udp)
	twice.Streams = append(twice.Streams, twice.Streams[0])
	twice.Streams[2].Name = "again"
	if _, err := w.streams.Reload(twice); err == nil || !strings.Contains(err.Error(), "streams.again.listen") {
		t.Errorf("got %v, want an error that names streams.again.listen", err)
	}
	if _, err := w.streams.Reload(w.config("two", tcp, w.udp)); err != nil { // prepared, never applied
		t.Fatal(err)
	}
	w.reload(w.config("two", w.tcp, w.udp))
	l, err := net.Listen("tcp", tcp)
	if err != nil {
		t.Fatalf("an address that was prepared only is still held: %v", err)
	}
	l.Close()
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	old := w.join(t)
	old.expect(t, "before", "one")
	w.streams.Drain()
	old.expect(t, "while draining", "one")
	if c, err := net.Dial("tcp", w.tcp); err == nil {
		c.Close()
		t.Error("a new connection while draining")
	}
	if got := ask(t, dial(t, "udp", w.udp), "x", 100*time.Millisecond); got != "" {
		t.Errorf("a new udp session while draining: %q", got)
	}
	eventually(t, "it is counted", func() bool { return w.metric("drops_total", "reason=draining") == 1 })
	w.reload(w.config("one", w.tcp, w.udp))
	old.expect(t, "after a reload while draining", "one")
	old.tcp.Close()
	eventually(t, "the tcp session is over", func() bool { return w.streams.Sessions() == 1 })
}

func TestDrainEndsWithItsTime(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("one", w.tcp, w.udp)
	cfg.Drain.Streams = 100 * time.Millisecond
	w.reload(cfg)
	w.join(t).expect(t, "before", "one")
	w.streams.Drain()
	eventually(t, "the sessions are over", func() bool { return w.streams.Sessions() == 0 })
	eventually(t, "both are counted", func() bool { return w.metric("sessions_ended_total", "reason=drained") == 2 })
}

func TestListenOnABusyAddress(t *testing.T) {
	taken := packetSocket(t, "127.0.0.1:0").LocalAddr().String()
	tcp := free(t, "tcp")
	cfg := configOf([]config.Stream{
		{Name: "lobby", Network: "tcp", Listen: tcp},
		{Name: "match", Network: "udp", Listen: taken},
	}, map[string][]string{"arena": {"127.0.0.1:9"}})
	origins, err := origin.New(cfg, origin.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Listen(cfg, stream.Deps{Origins: origins}); err == nil || !strings.Contains(err.Error(), "streams.match.listen") {
		t.Fatalf("got %v", err)
	}
	l, err := net.Listen("tcp", tcp)
	if err != nil {
		t.Fatalf("what was bound before the error is still held: %v", err)
	}
	l.Close()
}

func TestRunWithAnEndedContextClosesEverything(t *testing.T) {
	cfg := configOf([]config.Stream{tcpMatch, {Name: "u", Network: "udp"}}, map[string][]string{"arena": {"127.0.0.1:9"}})
	origins, err := origin.New(cfg, origin.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := stream.Listen(cfg, stream.Deps{Origins: origins})
	if err != nil {
		t.Fatal(err)
	}
	status := s.Status()
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for _, st := range status {
		if st.Network == "udp" {
			packetSocket(t, st.Listen)
		} else if c, err := net.Dial("tcp", st.Listen); err == nil {
			c.Close()
			t.Errorf("%s still accepts", st.Name)
		}
	}
}

func TestStopEndsSessions(t *testing.T) {
	var w *world
	var player net.Conn
	t.Run("run", func(t *testing.T) { // and stop, with sessions under way
		w = newWorld(t)
		player = player0(t, w.tcp)
		w.join(t).expect(t, "before", "one")
	})
	if n := w.streams.Sessions(); n != 0 {
		t.Errorf("%d sessions after Run has returned", n)
	}
	if n := w.metric("sessions_ended_total", "reason=stopped"); n < 2 { // the third client leaves just before
		t.Errorf("%v sessions ended as stopped, want 2 or 3", n)
	}
	defer player.Close()
	if _, err := player.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// player0 outlives its test.
func player0(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, c, "x\n", soon); got != "one:x\n" {
		t.Fatalf("got %q", got)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	return c
}

func TestMetricNames(t *testing.T) {
	e := start(t, configOf([]config.Stream{tcpMatch, {Name: "u", Network: "udp"}}, map[string][]string{"arena": {"127.0.0.1:9"}}), nil)
	families, err := e.reg.Gather()
	if err != nil || len(families) < 5 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "nearzone_stream_") {
			t.Errorf("%s: not nearzone_stream_*", f.GetName())
		}
	}
}
