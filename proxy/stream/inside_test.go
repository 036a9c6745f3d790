package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/time/rate"
)

// slowServers connect to one address, each time when the gate lets them.
type slowServers struct {
	address string
	gate    chan struct{}
}

func (s slowServers) connect(ctx context.Context, _, network, _ string) (net.Conn, error) {
	select {
	case <-s.gate:
		return (&net.Dialer{}).DialContext(ctx, network, s.address)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (slowServers) report(string, netip.AddrPort, bool) {}

// A name that takes long to look up holds up its own client alone, and what that one sends meanwhile keeps its order.
func TestUDPSlowConnect(t *testing.T) {
	server := listenPacket(t)
	gate := make(chan struct{})
	r, p := newRelay(t, slowServers{server.LocalAddr().String(), gate})
	defer serveRelay(r)()

	slow, quick := client(t, r), client(t, r)
	for i := range maxEarly + 3 {
		fmt.Fprintf(slow, "slow %d", i)
	}
	dropped(t, p, dropWaiting, 3)
	gate <- struct{}{} // for the slow one
	buf := make([]byte, 64)
	for i := range maxEarly {
		if got, want := next(t, server, buf), fmt.Sprintf("slow %d", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	fmt.Fprint(quick, "quick")
	fmt.Fprint(slow, "slow again")
	if got := next(t, server, buf); got != "slow again" {
		t.Errorf("got %q: the slow connect of one client holds up another", got)
	}
	gate <- struct{}{}
	if got := next(t, server, buf); got != "quick" {
		t.Errorf("got %q", got)
	}
}

// What the kernel had no room for is counted: all that was sent is either relayed or counted.
func TestUDPKernelDropsAreCounted(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the count is Linux's")
	}
	server := listenPacket(t)
	gate := make(chan struct{})
	close(gate)
	r, p := newRelay(t, slowServers{server.LocalAddr().String(), gate})
	r.conn.SetReadBuffer(1) // the least there is
	c := client(t, r)
	const sent = 100
	for range sent {
		c.Write(make([]byte, 500))
	}
	defer serveRelay(r)()
	buf := make([]byte, 1024)
	got := 0
	for ; len(next(t, server, buf)) == 500; got++ {
		if got == 0 {
			c.Write([]byte("last")) // there is room again; the count comes with the next datagram
		}
	}
	if got == 0 || got == sent {
		t.Fatalf("%d of %d came through a full queue", got, sent)
	}
	dropped(t, p, dropKernel, sent-got)
}

func listenPacket(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newRelay(t *testing.T, s servers) (*udpRelay, *policy) {
	t.Helper()
	deps := Deps{Log: slog.New(slog.DiscardHandler)}.withDefaults()
	m := newMetrics(prometheus.NewRegistry())
	p := &policy{name: "match", unreplied: time.Minute, established: time.Minute, max: 10, count: m.of("match", "udp")}
	var policies atomic.Pointer[policy]
	policies.Store(p)
	r, err := newUDPRelay(shared{Deps: &deps, servers: s, policy: &policies, seldom: new(rate.Sometimes), locals: new(locals)}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return r, p
}

// serveRelay serves until the function it returns is called.
func serveRelay(r *udpRelay) (stop func()) {
	var serving sync.WaitGroup
	serving.Go(func() { r.serve(context.Background()) })
	return func() { r.close(endStopped); serving.Wait() }
}

// dropped waits until n datagrams are counted.
func dropped(t *testing.T, p *policy, why drop, n int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); testutil.ToFloat64(p.count.drops[why]) != float64(n); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v counted as %s, want %d", testutil.ToFloat64(p.count.drops[why]), why, n)
		}
	}
}

func client(t *testing.T, r *udpRelay) net.Conn {
	c, err := net.Dial("udp", r.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func next(t *testing.T, server net.PacketConn, buf []byte) string {
	t.Helper()
	server.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, _, err := server.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestNobodyAnswersImpossibleSources(t *testing.T) {
	var ours locals
	for _, a := range []string{"0.0.0.0:7777", "0.0.0.0:7779", "203.0.113.11:7780", "203.0.113.12:9999"} {
		ours.add(netip.MustParseAddrPort(a))
	}
	ours.remove(netip.MustParseAddrPort("203.0.113.12:9999"))
	r := &udpRelay{shared: shared{locals: &ours}, local: netip.MustParseAddrPort("0.0.0.0:7777"), any: true}
	for client, want := range map[string]bool{
		"198.51.100.7:7777":    true,
		"198.51.100.7:0":       false,
		"0.0.0.0:5000":         false,
		"255.255.255.255:5000": false,
		"224.0.0.1:5000":       false,
		"[ff02::1]:5000":       false,
		"203.0.113.10:7777":    false, // ourselves: it would go round for ever
		"203.0.113.10:7778":    true,
		"203.0.113.10:7779":    false, // another stream of ours: between two it would go round as well
		"127.0.0.1:7779":       false,
		"198.51.100.7:7779":    true,
		"203.0.113.11:7780":    false,
		"203.0.113.10:7780":    true,
		"203.0.113.12:9999":    true,  // not any more
		"198.51.100.7:7":       false, // echo
		"198.51.100.7:19":      false, // chargen
		"198.51.100.7:53":      false, // dns
		"198.51.100.7:54":      true,
		"[2001:db8::1]:5000":   true,
	} {
		f := flow{netip.MustParseAddrPort(client), netip.MustParseAddr("203.0.113.10")}
		if got := r.answerable(f); got != want {
			t.Errorf("%s: %v, want %v", client, got, want)
		}
	}
}

// A header names what it should, and is as long as said, for all addresses.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte{198, 51, 100, 7}, uint16(5000), []byte{203, 0, 113, 10}, uint16(7777), true)
	v6 := netip.MustParseAddr("2001:db8::1").As16()
	f.Add(v6[:], uint16(1), v6[:], uint16(65535), false)
	f.Fuzz(func(t *testing.T, from []byte, fromPort uint16, to []byte, toPort uint16, udp bool) {
		source, ok1 := netip.AddrFromSlice(from)
		dest, ok2 := netip.AddrFromSlice(to)
		if !ok1 || !ok2 || source.Unmap().Is4() != dest.Unmap().Is4() {
			t.Skip("no two addresses of one family")
		}
		network := "tcp"
		if udp {
			network = "udp"
		}
		client, local := netip.AddrPortFrom(source.Unmap(), fromPort), netip.AddrPortFrom(dest.Unmap(), toPort)
		for _, version := range []string{"v1", "v2"} {
			if version == "v1" && udp {
				continue
			}
			raw, err := proxyHeader(version, network, client, local)
			if err != nil {
				t.Fatal(err)
			}
			if size := map[bool]int{true: 28, false: 52}[client.Addr().Is4()]; version == "v2" && len(raw) != size {
				t.Errorf("%d bytes, want %d", len(raw), size)
			}
			r := bufio.NewReader(bytes.NewReader(append(raw, "payload"...)))
			h, err := proxyproto.Read(r)
			if err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			if addrPort(h.SourceAddr) != client || addrPort(h.DestinationAddr) != local || h.TransportProtocol.IsDatagram() != udp {
				t.Errorf("%q is read as %+v", raw, h)
			}
			if rest, _ := r.Peek(7); string(rest) != "payload" {
				t.Errorf("%q behind the header", rest)
			}
		}
	})
}

func TestEndingsAndDropsHaveNames(t *testing.T) {
	for e := range numEndings {
		if e.String() == "" {
			t.Errorf("ending %d has no name", e)
		}
	}
	for d := range numDrops {
		if d.String() == "" {
			t.Errorf("drop %d has no name", d)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(endIdle)
	if why := causeOf(ctx); why != endIdle {
		t.Errorf("cause %v", why)
	}
	ctx, cancel = context.WithCancelCause(context.Background())
	cancel(errors.New("something else"))
	if why := causeOf(ctx); why != endStopped {
		t.Errorf("cause %v", why)
	}
}
