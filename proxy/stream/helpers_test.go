package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
	"github.com/nearzone/nearzone/proxy/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is a node's streams and origins, running.
type edge struct {
	t       *testing.T
	streams *stream.Streams
	origins *origin.Set
	reg     *prometheus.Registry
}

// start runs cfg until the test ends.
func start(t *testing.T, cfg *config.Config, observe func(netip.Addr, time.Duration)) *edge {
	t.Helper()
	e := &edge{t: t, reg: prometheus.NewRegistry()}
	var err error
	if e.origins, err = origin.New(cfg, origin.Deps{Zone: "us-west-2", Reg: prometheus.NewRegistry()}); err != nil {
		t.Fatal(err)
	}
	e.streams, err = stream.Listen(cfg, stream.Deps{Origins: e.origins, Observe: observe, SampleEvery: 20 * time.Millisecond, Reg: e.reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{e.origins.Run, e.streams.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		done := make(chan struct{})
		go func() { running.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("Run does not end with its context")
		}
	})
	return e
}

// reload makes cfg the configuration.
func (e *edge) reload(cfg *config.Config) {
	e.t.Helper()
	for _, reload := range []func(*config.Config) (func(), error){e.origins.Reload, e.streams.Reload} {
		apply, err := reload(cfg)
		if err != nil {
			e.t.Fatal(err)
		}
		apply()
	}
}

// addr is where a stream listens.
func (e *edge) addr(name string) string {
	e.t.Helper()
	for _, s := range e.streams.Status() {
		if s.Name == name && !s.Retired {
			return s.Listen
		}
	}
	e.t.Fatalf("no stream %q in %+v", name, e.streams.Status())
	return ""
}

// metric is the sum of a metric's series that have all the labels (`name=value`).
func (e *edge) metric(name string, labels ...string) (sum float64) {
	e.t.Helper()
	families, err := e.reg.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			has := map[string]bool{}
			for _, l := range m.GetLabel() {
				has[l.GetName()+"="+l.GetValue()] = true
			}
			all := f.GetName() == "nearzone_stream_"+name
			for _, l := range labels {
				all = all && has[l]
			}
			if all {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// eventually waits until is is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if is() {
			return
		}
		<-time.After(2 * time.Millisecond)
	}
	t.Fatalf("not within 10 s: %s", what)
}

// configOf makes a configuration of streams, and of origins by name with their servers' addresses.
func configOf(streams []config.Stream, origins map[string][]string) *config.Config {
	cfg := &config.Config{Drain: config.Drain{Streams: time.Minute}}
	for name, servers := range origins {
		o := config.Origin{
			Name: name, Check: config.Check{Off: true, Every: time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
			Timeouts: config.OriginTimeouts{Connect: time.Second, FirstByte: time.Second, Idle: time.Minute},
		}
		for _, s := range servers {
			a := netip.MustParseAddrPort(s)
			o.Servers = append(o.Servers, config.Server{Host: a.Addr().String(), Port: a.Port()})
		}
		cfg.Origins = append(cfg.Origins, o)
	}
	for _, s := range streams {
		if s.Listen == "" {
			s.Listen = "127.0.0.1:0"
		}
		if s.Origin == "" {
			s.Origin = "arena"
		}
		if s.MaxSessions == 0 {
			s.MaxSessions = 20000
		}
		if s.Idle == (config.StreamIdle{}) {
			s.Idle = config.StreamIdle{Unreplied: 30 * time.Second, Established: time.Minute}
		}
		cfg.Streams = append(cfg.Streams, s)
	}
	return cfg
}

// arena is a UDP server that answers NAME:DATAGRAM, once for each datagram; `silent…` it does not answer.
func arena(t *testing.T, name, address string) (*net.UDPConn, string) {
	t.Helper()
	conn := packetSocket(t, address)
	conn.SetReadBuffer(4 << 20) // what is lost here would be taken for lost by us
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if !strings.HasPrefix(string(buf[:n]), "silent") {
				conn.WriteToUDPAddrPort([]byte(name+":"+string(buf[:n])), from)
			}
		}
	}()
	return conn, conn.LocalAddr().String()
}

func packetSocket(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		if strings.HasPrefix(address, "[") {
			t.Skipf("no IPv6 on this machine, so its part is skipped: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.(*net.UDPConn)
}

// dial makes a client.
func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// player makes a client with an address of its own, so that players do not all lead to one server.
func player(t *testing.T, network, address string, number int) net.Conn {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 without being asked")
	}
	ip := net.IPv4(127, 0, byte(1+number/250), byte(1+number%250))
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: ip}}
	if network == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: ip}
	}
	c, err := d.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a datagram and returns the answer; empty if none comes in time.
func ask(t *testing.T, c net.Conn, text string, timeout time.Duration) string {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		return ""
	}
	return hear(t, c, timeout)
}

func hear(t *testing.T, c net.Conn, timeout time.Duration) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	c.SetReadDeadline(time.Now().Add(timeout))
	n, err := c.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Sprintf("(%v)", err)
	}
	return string(buf[:n])
}

// tcpServer handles each connection of a new listener with fn, which need not close it.
func tcpServer(t *testing.T, address string, fn func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		if strings.HasPrefix(address, "[") {
			t.Skipf("no IPv6 on this machine, so its part is skipped: %v", err)
		}
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handlers.Go(func() { defer c.Close(); fn(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); handlers.Wait() })
	return l.Addr().String()
}

// echo sends back what it gets, and its end.
func echo(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}
