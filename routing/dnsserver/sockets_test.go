package dnsserver_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing/dnsserver"
)

// Queries sent without waiting are answered in order, on one connection (RFC 7766 §6.2.1.1).
func TestPipelining(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	c, err := dns.DialTimeout("tcp", r.udp, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for id := range uint16(200) {
		q := question("www.edge.example.com.", dns.TypeA, "")
		q.Id = id
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for id := range uint16(200) {
		if got, err := c.ReadMsg(); err != nil || got.Id != id {
			t.Fatalf("answer %d: %v, %v", id, got, err)
		}
	}
}

func TestTCPRefuses(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	for what, wire := range map[string]string{
		"too long":   "ffff" + strings.Repeat("00", 100),
		"short":      "0003 123400",
		"a response": "000c 1234 8000 0000 0000 0000 0000",
	} {
		c, err := net.Dial("tcp", r.udp)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(unhex(t, wire)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 10)); n > 0 || err == nil || isTimeout(err) {
			t.Errorf("%s: read %d bytes, %v; want the connection closed", what, n, err)
		}
		c.Close()
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// One client cannot take all connections.
func TestTCPConnectionsPerClient(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range dnsserver.MaxConnsPeer {
		c, err := net.Dial("tcp", r.udp)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	waitFor(t, "all connections open", func() bool {
		return metric(t, r, "nearzone_dnsserver_tcp_connections", "") == dnsserver.MaxConnsPeer
	})
	c, err := net.Dial("tcp", r.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || isTimeout(err) {
		t.Errorf("one too many: read %d, %v; want it closed", n, err)
	}
	held[0].Close()
	waitFor(t, "a place", func() bool {
		return metric(t, r, "nearzone_dnsserver_tcp_connections", "") < dnsserver.MaxConnsPeer
	})
	r.ask(t, "tcp", question("www.edge.example.com.", dns.TypeA, ""))
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
		time.Sleep(time.Millisecond) // polling
	}
}

// An answer to a wildcard socket comes from the address that was asked.
func TestWildcardAnswersFromAddressAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("127.0.0.2 exists on linux only")
	}
	for _, host := range []string{"0.0.0.0", ""} {
		cfg := world()
		cfg.DNS.Listen = net.JoinHostPort(host, "0")
		r := start(t, cfg, dnsserver.Deps{})
		port := r.Addrs()[0].Port()
		for _, asked := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
			if asked == "::1" && (host != "" || !hasIPv6()) {
				continue
			}
			// A connected socket hears nothing but the address it is connected to.
			r.udp = netip.AddrPortFrom(addr(asked), port).String()
			for _, network := range []string{"udp", "tcp"} {
				if got := r.ask(t, network, question("www.edge.example.com.", dns.TypeA, "")); len(got.Answer) != 2 {
					t.Errorf("%s at %s %s: %v", host, network, asked, got)
				}
			}
		}
	}
}

func hasIPv6() bool {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		ln.Close()
	}
	return err == nil
}

// A stub resolver holds the port on an address of its own: every other address is bound by itself.
func TestBesideStubResolver(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("127.0.0.53 exists on linux only")
	}
	stub, err := net.ListenPacket("udp", "127.0.0.53:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stub.Close()
	port := stub.LocalAddr().(*net.UDPAddr).Port
	cfg := world()
	cfg.DNS.Listen = fmt.Sprintf(":%d", port)
	r := start(t, cfg, dnsserver.Deps{})
	loopback := netip.AddrPortFrom(addr("127.0.0.1"), uint16(port))
	if !slices.Contains(r.Addrs(), loopback) {
		t.Fatalf("bound %v, want %v among them", r.Addrs(), loopback)
	}
	r.udp = loopback.String()
	r.ask(t, "udp", question("www.edge.example.com.", dns.TypeA, ""))
	r.ask(t, "tcp", question("www.edge.example.com.", dns.TypeA, ""))
}

func TestBindErrors(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	denied := func(string, string) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: fmt.Errorf("bind: %w", syscall.EACCES)}
	}
	for _, tc := range []struct {
		listen string
		d      dnsserver.Deps
		want   string
	}{
		{held.Addr().String(), dnsserver.Deps{}, "another process holds it"},
		{"192.0.2.1:0", dnsserver.Deps{}, "this machine has no such address"},
		{"127.0.0.1", dnsserver.Deps{}, `write it as ":53"`},
		{"127.0.0.1:53", dnsserver.Deps{Listen: denied}, "CAP_NET_BIND_SERVICE"},
	} {
		cfg := world()
		cfg.DNS.Listen = tc.listen
		tc.d.Answer, tc.d.Log = steer, slog.New(slog.DiscardHandler)
		_, err := dnsserver.Listen(cfg, tc.d)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "dns.listen: ") {
			t.Errorf("%s: %v, want %q", tc.listen, err, tc.want)
		}
	}
}

// Neither a socket nor a connection is lost by a reload that does not move the address.
func TestReload(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	c, err := dns.DialTimeout("tcp", r.udp, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() string {
		t.Helper()
		if err := c.WriteMsg(question("www.edge.example.com.", dns.TypeA, "")); err != nil {
			t.Fatal(err)
		}
		got, err := c.ReadMsg()
		if err != nil || len(got.Answer) != 1 {
			return fmt.Sprint(got, err)
		}
		return got.Answer[0].(*dns.A).A.String()
	}
	for i := range 20 {
		next := world()
		next.DNS.Records = []config.Record{{Name: "www.edge.example.com", Type: "A", Values: []string{fmt.Sprintf("192.0.2.%d", i)}}}
		apply, err := r.Reload(next)
		if err != nil {
			t.Fatal(err)
		}
		apply()
		if got := ask(); got != fmt.Sprintf("192.0.2.%d", i) {
			t.Errorf("reload %d: %s", i, got)
		}
	}

	bad := world()
	bad.DNS.Records = append(bad.DNS.Records, config.Record{Name: "www.edge.example.com", Type: "A", Values: []string{"one"}})
	if _, err := r.Reload(bad); err == nil || !strings.Contains(err.Error(), `"one"`) {
		t.Errorf("bad reload: %v", err)
	}
	if got := ask(); got != "192.0.2.19" {
		t.Errorf("after a bad reload: %s", got)
	}
}

// A reload that moves the address: the old one answers until the new one does.
func TestReloadMoves(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	old := r.udp
	next := world()
	next.DNS.Listen = "127.0.0.2:0"
	if runtime.GOOS != "linux" {
		next.DNS.Listen = "[::1]:0"
	}
	if _, err := r.Reload(next); err != nil { // bound, then given up by others
		t.Fatal(err)
	}
	r.ask(t, "udp", question("www.edge.example.com.", dns.TypeA, ""))
	apply, err := r.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	r.udp = r.Addrs()[0].String()
	if r.udp == old {
		t.Fatalf("still at %s", old)
	}
	r.ask(t, "udp", question("www.edge.example.com.", dns.TypeA, ""))
	r.ask(t, "tcp", question("www.edge.example.com.", dns.TypeA, ""))
	waitFor(t, "the old address closed", func() bool {
		c, err := net.Dial("tcp", old)
		if err == nil {
			c.Close()
		}
		return err != nil
	})

	apply, err = r.Reload(noSockets())
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if len(r.Addrs()) != 0 {
		t.Errorf("still at %v", r.Addrs())
	}
}

// A socket that is no *net.UDPConn is served too.
func TestForeignPacketConn(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{ListenPacket: func(network, address string) (net.PacketConn, error) {
		pc, err := net.ListenPacket(network, address)
		return struct{ net.PacketConn }{pc}, err
	}})
	r.ask(t, "udp", question("play.edge.example.com.", dns.TypeA, "192.0.2.0/24"))
}

// Run answers what it has read, then ends, though clients hold connections.
func TestStop(t *testing.T) {
	r := listen(t, world(), dnsserver.Deps{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	c, err := net.Dial("tcp", r.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.ask(t, "udp", question("www.edge.example.com.", dns.TypeA, ""))
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run did not end")
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("connection after the end: %v, want EOF", err)
	}
}

// dig, where there is one, agrees.
func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not installed")
	}
	r := start(t, world(), dnsserver.Deps{})
	host, port, _ := net.SplitHostPort(r.udp)
	for _, tc := range []struct{ args, want string }{
		{"play.edge.example.com A +subnet=192.0.2.0/24", "CLIENT-SUBNET: 192.0.2.0/24/24"},
		{"play.edge.example.com A +subnet=0", "CLIENT-SUBNET: 0.0.0.0/0/0"},
		{"big.edge.example.com TXT +bufsize=1232", "bbbbbb"},
		{"play.edge.example.com A +edns=1 +noednsneg", "BADVERS"},
		{"chaos version.bind TXT", "REFUSED"},
	} {
		args := append([]string{"@" + host, "-p", port, "+norec"}, strings.Fields(tc.args)...)
		out, err := exec.Command(dig, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tc.want) || strings.Contains(string(out), "WARNING") {
			t.Errorf("dig %s: %v, want %q\n%s", tc.args, err, tc.want, out)
		}
	}
}

// The length of a TCP message and the message leave in one segment.
func TestTCPOneSegment(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	c, err := net.Dial("tcp", r.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pkt, _ := question("www.edge.example.com.", dns.TypeA, "").Pack()
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(pkt)))
	for _, b := range append(framed, pkt...) { // a slow client, byte by byte
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 4096)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(buf); err != nil || n != 2+int(binary.BigEndian.Uint16(buf)) {
		t.Errorf("first read: %d bytes, %v", n, err)
	}
}
