package stream_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/nearzone/nearzone/config"
)

var udpMatch = config.Stream{Name: "match", Network: "udp"}

const soon = 2 * time.Second // for an answer over loopback

func TestUDPSessionsAreSticky(t *testing.T) {
	servers := map[string][]string{}
	for _, name := range []string{"red", "green", "blue"} {
		_, addr := arena(t, name, "127.0.0.1:0")
		servers["arena"] = append(servers["arena"], addr)
	}
	all := configOf([]config.Stream{udpMatch}, servers)
	e := start(t, all, nil)
	clients := make([]net.Conn, 100)
	home := make([]string, len(clients))
	used := map[string]int{}
	round := func() {
		for i, c := range clients {
			server, _, _ := strings.Cut(ask(t, c, "x", soon), ":")
			if home[i] == "" {
				home[i] = server
				used[server]++
			}
			if server == "" || server != home[i] {
				t.Fatalf("client %d was served by %q, before by %q", i, server, home[i])
			}
		}
	}
	for i := range clients {
		clients[i] = player(t, "udp", e.addr("match"), i)
	}
	round()
	if len(used) != 3 {
		t.Errorf("100 clients went to %v, want all three servers", used)
	}
	_, fourth := arena(t, "white", "127.0.0.1:0")
	e.reload(configOf([]config.Stream{udpMatch}, map[string][]string{"arena": append([]string{fourth}, servers["arena"]...)}))
	round()
	e.reload(configOf([]config.Stream{udpMatch}, map[string][]string{"arena": servers["arena"][1:]})) // a server leaves; its players finish there
	round()
	if n := e.streams.Sessions(); n != len(clients) {
		t.Errorf("%d sessions, want %d", n, len(clients))
	}
}

func TestUDPOrderIsKeptWithinEachFlow(t *testing.T) {
	const flows, each, window = 64, 300, 8
	_, server := arena(t, "s", "127.0.0.1:0")
	e := start(t, configOf([]config.Stream{udpMatch}, map[string][]string{"arena": {server}}), nil)
	var all sync.WaitGroup
	for range flows {
		c := dial(t, "udp", e.addr("match"))
		all.Go(func() {
			buf := make([]byte, 64)
			for sent, got := 0, 0; got < each; {
				for ; sent < each && sent-got < window; sent++ {
					c.Write(binary.BigEndian.AppendUint32(nil, uint32(sent)))
				}
				c.SetReadDeadline(time.Now().Add(soon))
				n, err := c.Read(buf)
				if err != nil {
					t.Errorf("after %d answers: %v", got, err)
					return
				}
				if seq := int(binary.BigEndian.Uint32(buf[n-4 : n])); seq != got {
					t.Errorf("datagram %d came in place of %d", seq, got)
					return
				}
				got++
			}
		})
	}
	all.Wait()
	eventually(t, "every datagram is counted", func() bool {
		return e.metric("packets_total", "direction=up") == flows*each && e.metric("packets_total", "direction=down") == flows*each
	})
}

func TestUDPDatagramsPassUnchanged(t *testing.T) {
	conn := packetSocket(t, "127.0.0.1:0")
	e := start(t, configOf([]config.Stream{udpMatch}, map[string][]string{"arena": {conn.LocalAddr().String()}}), nil)
	c := dial(t, "udp", e.addr("match"))
	buf := make([]byte, 1<<16)
	for _, size := range []int{1, 0, 1200, 1472, 9000, 65507, 1} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(soon))
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], sent) {
			t.Fatalf("%d bytes to the server: %d came, %v", size, n, err)
		}
		conn.WriteToUDPAddrPort(sent, from)
		c.SetReadDeadline(time.Now().Add(soon))
		if n, err = c.Read(buf); err != nil || !bytes.Equal(buf[:n], sent) {
			t.Fatalf("%d bytes to the client: %d came, %v", size, n, err)
		}
	}
}

func TestUDPTooBigWithTheHeader(t *testing.T) {
	_, server := arena(t, "s", "127.0.0.1:0")
	st := udpMatch
	st.ProxyProtocol = "v2"
	e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
	dial(t, "udp", e.addr("match")).Write(make([]byte, 65507))
	eventually(t, "it is counted", func() bool { return e.metric("drops_total", "reason=too_big") == 1 })
}

func TestUDPProxyHeaderInEveryDatagram(t *testing.T) {
	for listen, size := range map[string]int{"127.0.0.1:0": 28, "[::1]:0": 52} {
		t.Run(listen, func(t *testing.T) {
			server := packetSocket(t, "127.0.0.1:0")
			packetSocket(t, listen) // for its skip
			st := udpMatch
			st.Listen, st.ProxyProtocol = listen, "v2"
			e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server.LocalAddr().String()}}), nil)
			c := dial(t, "udp", e.addr("match"))
			buf := make([]byte, 2048)
			for i := range 5 {
				payload := fmt.Sprintf("datagram %d", i)
				c.Write([]byte(payload))
				server.SetReadDeadline(time.Now().Add(soon))
				n, from, err := server.ReadFromUDPAddrPort(buf)
				if err != nil {
					t.Fatal(err)
				}
				h, rest := parseHeader(t, buf[:n])
				if len(rest) != n-size || string(rest) != payload {
					t.Errorf("header of %d bytes, want %d, before %q", n-len(rest), size, rest)
				}
				if h.Command != proxyproto.PROXY || !h.TransportProtocol.IsDatagram() ||
					h.SourceAddr.String() != c.LocalAddr().String() || h.DestinationAddr.String() != c.RemoteAddr().String() {
					t.Errorf("got %+v, want %v to %v", h, c.LocalAddr(), c.RemoteAddr())
				}
				server.WriteToUDPAddrPort([]byte("plain"), from)
				if got := hear(t, c, soon); got != "plain" {
					t.Errorf("answer %q: none has a header", got)
				}
			}
			eventually(t, "payload is counted, headers are not", func() bool {
				return e.metric("bytes_total", "direction=up") == 5*float64(len("datagram 0"))
			})
		})
	}
}

func TestUDPAnswersComeFromTheAddressSpokenTo(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("127.0.0.2 is Linux's")
	}
	_, server := arena(t, "s", "127.0.0.1:0")
	for _, listen := range []string{"0.0.0.0:0", ":0"} {
		st := udpMatch
		st.Listen = listen
		e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
		port := netip.MustParseAddrPort(e.addr("match")).Port()
		client := packetSocket(t, "127.0.0.1:0")
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
			to := netip.AddrPortFrom(netip.MustParseAddr(host), port)
			client.WriteToUDPAddrPort([]byte("x"), to)
			client.SetReadDeadline(time.Now().Add(soon))
			n, from, err := client.ReadFromUDPAddrPort(make([]byte, 64))
			if err != nil || n != 3 || from != to {
				t.Errorf("%s: asked %v, answered by %v (%d bytes, %v)", listen, to, from, n, err)
			}
		}
		if n := e.streams.Sessions(); n != 3 {
			t.Errorf("%d sessions, want one for each address spoken to", n)
		}
	}
}

func TestUDPIdle(t *testing.T) {
	_, server := arena(t, "s", "127.0.0.1:0")
	for _, c := range []struct {
		name   string
		idle   config.StreamIdle
		text   string
		within [2]time.Duration
	}{
		{"unreplied", config.StreamIdle{Unreplied: 150 * time.Millisecond, Established: time.Minute}, "silent", [2]time.Duration{140 * time.Millisecond, 2 * time.Second}},
		{"established", config.StreamIdle{Unreplied: 50 * time.Millisecond, Established: 300 * time.Millisecond}, "x", [2]time.Duration{290 * time.Millisecond, 2 * time.Second}},
		{"established below unreplied", config.StreamIdle{Unreplied: time.Minute, Established: 150 * time.Millisecond}, "x", [2]time.Duration{140 * time.Millisecond, 2 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			st := udpMatch
			st.Idle = c.idle
			e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
			client := dial(t, "udp", e.addr("match"))
			began := time.Now()
			if got := ask(t, client, c.text, 100*time.Millisecond); c.text == "x" && got != "s:x" {
				t.Fatalf("got %q", got)
			}
			eventually(t, "the session is over", func() bool { return e.streams.Sessions() == 0 })
			if d := time.Since(began); d < c.within[0] || d > c.within[1] {
				t.Errorf("over after %v, want %v", d, c.within)
			}
			eventually(t, "it is counted", func() bool { return e.metric("sessions_ended_total", "reason=idle") == 1 })
		})
	}
}

func TestUDPTrafficInOneDirectionKeepsASession(t *testing.T) {
	server := packetSocket(t, "127.0.0.1:0")
	st := udpMatch
	st.Idle = config.StreamIdle{Unreplied: 200 * time.Millisecond, Established: 200 * time.Millisecond}
	e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server.LocalAddr().String()}}), nil)
	c := dial(t, "udp", e.addr("match"))
	c.Write([]byte("x"))
	_, session, err := server.ReadFromUDPAddrPort(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // twice the idle time: the server alone speaks
		<-time.After(50 * time.Millisecond)
		server.WriteToUDPAddrPort([]byte("s"), session)
		if got := hear(t, c, soon); got != "s" {
			t.Fatalf("client heard %q", got)
		}
	}
	for range 8 { // and the client alone
		<-time.After(50 * time.Millisecond)
		c.Write([]byte("x"))
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 64))
		if err != nil || from != session {
			t.Fatalf("from %v, %v; want the same session %v", from, err, session)
		}
	}
}

func TestUDPCap(t *testing.T) {
	_, server := arena(t, "s", "127.0.0.1:0")
	st := udpMatch
	st.MaxSessions = 3
	e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
	var clients []net.Conn
	for range 3 {
		c := dial(t, "udp", e.addr("match"))
		clients = append(clients, c)
		if got := ask(t, c, "x", soon) + ask(t, c, "x", soon); got != "s:xs:x" {
			t.Fatalf("got %q", got)
		}
	}
	dial(t, "udp", e.addr("match")).Write([]byte("x"))
	eventually(t, "the fourth is counted", func() bool { return e.metric("drops_total", "reason=full") == 1 })
	for _, c := range clients {
		if got := ask(t, c, "y", soon); got != "s:y" {
			t.Errorf("a session that was there got %q", got)
		}
	}
	if n := e.metric("sessions"); n != 3 {
		t.Errorf("gauge says %v sessions, want 3", n)
	}
}

// One datagram from a forged source is no player: such sessions fill the table and keep nobody out.
func TestUDPCapGivesWayToPlayers(t *testing.T) {
	_, server := arena(t, "s", "127.0.0.1:0")
	st := udpMatch
	st.MaxSessions = 3
	e := start(t, configOf([]config.Stream{st}, map[string][]string{"arena": {server}}), nil)
	player := dial(t, "udp", e.addr("match"))
	if got := ask(t, player, "x", soon) + ask(t, player, "x", soon); got != "s:xs:x" {
		t.Fatalf("got %q", got)
	}
	for range 20 {
		dial(t, "udp", e.addr("match")).Write([]byte("x"))
	}
	late := dial(t, "udp", e.addr("match"))
	if got := ask(t, late, "y", soon) + ask(t, late, "y", soon); got != "s:ys:y" {
		t.Errorf("who comes late got %q", got)
	}
	if got := ask(t, player, "z", soon); got != "s:z" {
		t.Errorf("who was there got %q", got)
	}
	eventually(t, "the table is within its limit", func() bool { return e.metric("sessions") <= 3 })
	if n := e.metric("sessions_ended_total", "reason=crowded_out"); n < 19 {
		t.Errorf("%v sessions were crowded out, want 19 or more", n)
	}
	if n := e.metric("sessions_started_total"); n != 22 {
		t.Errorf("%v sessions began, want 22", n)
	}
}

func TestUDPServerDeathMovesItsPlayers(t *testing.T) {
	red, redAddr := arena(t, "red", "127.0.0.1:0")
	_, greenAddr := arena(t, "green", "127.0.0.1:0")
	e := start(t, configOf([]config.Stream{udpMatch}, map[string][]string{"arena": {redAddr, greenAddr}}), nil)
	var onRed, onGreen net.Conn
	for i := 0; onRed == nil || onGreen == nil; i++ {
		c := player(t, "udp", e.addr("match"), i)
		if strings.HasPrefix(ask(t, c, "x", soon), "red") {
			onRed = c
		} else {
			onGreen = c
		}
	}
	red.Close()
	eventually(t, "a player of the dead server is served by the other", func() bool {
		return ask(t, onRed, "y", 100*time.Millisecond) == "green:y"
	})
	if got := ask(t, onGreen, "z", soon); got != "green:z" {
		t.Errorf("a player of the living server got %q", got)
	}
	if n := e.metric("sessions_ended_total", "reason=refused"); n == 0 {
		t.Error("no session ended as refused")
	}
	before := e.metric("sessions_ended_total", "reason=refused")
	for i := 100; i < 120; i++ {
		if got := ask(t, player(t, "udp", e.addr("match"), i), "x", soon); got != "green:x" {
			t.Errorf("a new player got %q", got)
		}
	}
	if n := e.metric("sessions_ended_total", "reason=refused"); n != before {
		t.Errorf("%v new sessions met the dead server, which is known by now", n-before)
	}
}

func TestUDPOnlyTheServerReachesTheClient(t *testing.T) {
	server := packetSocket(t, "127.0.0.1:0")
	e := start(t, configOf([]config.Stream{udpMatch}, map[string][]string{"arena": {server.LocalAddr().String()}}), nil)
	c := dial(t, "udp", e.addr("match"))
	c.Write([]byte("x"))
	_, session, err := server.ReadFromUDPAddrPort(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	packetSocket(t, "127.0.0.1:0").WriteToUDPAddrPort([]byte("injected"), session)
	server.WriteToUDPAddrPort([]byte("real"), session)
	if got := hear(t, c, soon); got != "real" {
		t.Errorf("client heard %q", got)
	}
}

func TestUDPWithoutServer(t *testing.T) {
	st := udpMatch
	st.Origin = "nowhere"
	e := start(t, configOf([]config.Stream{st}, nil), nil)
	c := dial(t, "udp", e.addr("match"))
	for range 3 {
		c.Write([]byte("x"))
	}
	eventually(t, "all are counted", func() bool { return e.metric("drops_total", "reason=no_server") == 3 })
	eventually(t, "it was one session", func() bool { return e.metric("sessions_ended_total", "reason=unreachable") == 1 })
}

// freeForBoth is an address whose port nobody holds, TCP or UDP. It is below the ports that the kernel gives to
// connections, which would take it in between.
func freeForBoth(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		if p, err := net.ListenPacket("udp", addr); err == nil {
			p.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

func TestAPlayerFindsTheSameServerByBothNetworks(t *testing.T) {
	var servers []string
	for i := range 4 {
		name := fmt.Sprint("server", i)
		_, addr := arena(t, name, freeForBoth(t))
		servers = append(servers, tcpServer(t, addr, func(c *net.TCPConn) { c.Write([]byte(name + ":x")) }))
	}
	e := start(t, configOf([]config.Stream{udpMatch, {Name: "lobby", Network: "tcp"}}, map[string][]string{"arena": servers}), nil)
	for i := range 20 {
		byUDP := ask(t, player(t, "udp", e.addr("match"), i), "x", soon)
		byTCP := hear(t, player(t, "tcp", e.addr("lobby"), i), soon)
		if byUDP == "" || byUDP != byTCP {
			t.Errorf("player %d: %q by UDP, %q by TCP", i, byUDP, byTCP)
		}
	}
}

// parseHeader splits a datagram by the reader of go-proxyproto.
func parseHeader(t *testing.T, datagram []byte) (*proxyproto.Header, []byte) {
	t.Helper()
	r := newReader(datagram)
	h, err := proxyproto.Read(r)
	if err != nil {
		t.Fatalf("%x: %v", datagram, err)
	}
	return h, datagram[len(datagram)-r.Buffered():]
}
