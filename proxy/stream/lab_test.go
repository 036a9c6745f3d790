package stream_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/lab"
	"github.com/nearzone/nearzone/proxy/origin"
	"github.com/nearzone/nearzone/proxy/stream"
)

// Across a network with a real round trip, that is what is observed, and UDP works through the zone's wildcard socket.
func TestRoundTripAcrossTheLab(t *testing.T) {
	const asked = 12 * time.Millisecond
	l := lab.New(t, lab.Topology{
		Hosts:   map[string][]string{"lax": {"203.0.113.10", "203.0.113.11"}, "viewer": {"198.51.100.7"}},
		Default: asked,
	})
	_, udpServer := arena(t, "s", "127.0.0.1:0")
	cfg := configOf([]config.Stream{
		{Name: "lobby", Network: "tcp", Listen: ":7000", Origin: "tcp"},
		{Name: "match", Network: "udp", Listen: ":7777", Origin: "udp"},
	}, map[string][]string{"tcp": {tcpServer(t, "127.0.0.1:0", echo)}, "udp": {udpServer}})
	origins, err := origin.New(cfg, origin.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var samples []time.Duration
	s, err := stream.Listen(cfg, stream.Deps{
		Origins: origins, Reg: prometheus.NewRegistry(),
		Observe: func(client netip.Addr, rtt time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if client == netip.MustParseAddr("198.51.100.7") {
				samples = append(samples, rtt)
			}
		},
		Listen:       func(network, address string) (net.Listener, error) { return l.Listen("lax", network, address) },
		ListenPacket: func(network, address string) (net.PacketConn, error) { return l.ListenPacket("lax", network, address) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })

	dial := func(network, address string) net.Conn {
		t.Helper()
		c, err := l.Dial(context.Background(), "viewer", net.Dialer{Timeout: 5 * time.Second}, network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, address := range []string{"203.0.113.11:7777", "203.0.113.10:7777"} {
		if got := ask(t, dial("udp", address), "x", soon); got != "s:x" { // a connected socket hears only whom it asked
			t.Errorf("%s answered %q", address, got)
		}
	}
	c := dial("tcp", "203.0.113.10:7000")
	for range 30 {
		if got := ask(t, c, "x", soon); got != "x" {
			t.Fatalf("got %q", got)
		}
	}
	c.Close()
	eventually(t, "a sample at the end", func() bool { mu.Lock(); defer mu.Unlock(); return len(samples) > 0 })
	if best := slices.Min(samples); best < asked || best > asked+2*time.Millisecond {
		t.Errorf("observed %v, want %v", best, asked)
	}
}
