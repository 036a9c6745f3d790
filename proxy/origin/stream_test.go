package origin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/proxy/origin"
)

// game starts a TCP server that says its name.
func game(t *testing.T, name string) string {
	return strings.TrimPrefix(raw(t, func(c net.Conn) { io.WriteString(c, name) }), "http://")
}

func dial(t *testing.T, p *origin.Pool, key string) string {
	t.Helper()
	c, err := p.DialContext(t.Context(), "tcp", key)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStreamsKeepTheirServer(t *testing.T) {
	servers := []string{game(t, "a"), game(t, "b"), game(t, "c")}
	p := pool(t, app(servers...))
	home := make(map[string]string)
	for i := range 30 {
		home[fmt.Sprint(i)] = dial(t, p, fmt.Sprint(i))
	}
	for range 3 {
		p.Report(netip.MustParseAddrPort(servers[0]), false)
	}
	used := make(map[string]bool)
	for key, was := range home {
		now := dial(t, p, key)
		if now == "a" || (was != "a" && now != was) {
			t.Errorf("key %s moved from %s to %s", key, was, now)
		}
		used[was] = true
	}
	if len(used) != 3 {
		t.Errorf("only %v are used", used)
	}
}

func TestStreamTriesTheNextServer(t *testing.T) {
	p := pool(t, app(closedPort(t), closedPort(t), game(t, "alive")))
	for i := range 20 {
		if got := dial(t, p, fmt.Sprint(i)); got != "alive" {
			t.Errorf("key %d: %q", i, got)
		}
	}
	if st := p.Status(); st[0].Up || st[1].Up {
		t.Errorf("status = %+v, want the refusing servers out", st)
	}
}

func TestStreamPrefersTheOwnZoneAndLeavesItWhenItIsDown(t *testing.T) {
	near := game(t, "near")
	p := start(t, origin.Deps{Zone: "lax"}, app("lax="+near, "us-west-2="+game(t, "far"))).Pool("app")
	for i := range 10 {
		if got := dial(t, p, fmt.Sprint(i)); got != "near" {
			t.Errorf("key %d: %q", i, got)
		}
	}
	for range 3 {
		p.Report(netip.MustParseAddrPort(near), false)
	}
	if got := dial(t, p, "k"); got != "far" {
		t.Errorf("with the own zone down: %q", got)
	}
}

func TestStreamWithoutAServer(t *testing.T) {
	p := pool(t, app(closedPort(t)))
	for range 3 {
		if _, err := p.DialContext(t.Context(), "tcp", "k"); !errors.Is(err, origin.ErrConnect) {
			t.Fatalf("err = %v, want %v", err, origin.ErrConnect)
		}
	}
	began := time.Now()
	if _, err := p.DialContext(t.Context(), "tcp", "k"); !errors.Is(err, origin.ErrNoServer) || time.Since(began) > 500*time.Millisecond {
		t.Errorf("err = %v after %v, want %v at once", err, time.Since(began), origin.ErrNoServer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pool(t, app(game(t, "x"))).DialContext(ctx, "tcp", "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestStreamOverUDP(t *testing.T) {
	echo, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := echo.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buf[:n], from)
		}
	}()
	defer func() { echo.Close(); <-done }()
	p := pool(t, app(echo.LocalAddr().String()))
	c, err := p.DialContext(t.Context(), "udp", "k")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*net.UDPConn); !ok {
		t.Fatalf("got a %T, want a *net.UDPConn", c)
	}
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Errorf("echo = %q, %v", buf[:n], err)
	}
}
