package dnsserver_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/routing/dnsserver"
)

// pipes is a network in memory, so that its time can be bent.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53} }

// dial also tells when the server has closed its end.
func (p *pipes) dial() (c net.Conn, closed chan time.Time) { return p.dialFrom(net.IPv4(192, 0, 2, 1)) }

func (p *pipes) dialFrom(ip net.IP) (c net.Conn, closed chan time.Time) {
	ours, theirs := net.Pipe()
	closed = make(chan time.Time, 10)
	p.conns <- &peer{theirs, ip, closed}
	return ours, closed
}

type peer struct {
	net.Conn
	from   net.IP
	closed chan time.Time
}

func (p peer) Close() error {
	p.closed <- time.Now()
	return p.Conn.Close()
}

func (p peer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: p.from, Port: 1024} }

// silence is a UDP socket that hears nothing until it is told to stop.
type silence struct {
	net.PacketConn
	stop chan struct{}
}

func (s silence) ReadFrom([]byte) (int, net.Addr, error) {
	<-s.stop
	return 0, nil, os.ErrDeadlineExceeded
}

func (s silence) SetReadDeadline(time.Time) error { close(s.stop); return nil }

func (s silence) Close() error { return nil }

func TestTCPTimeouts(t *testing.T) {
	answered, err := question("www.edge.example.com.", dns.TypeA, "").Pack()
	if err != nil {
		t.Fatal(err)
	}
	whole := append([]byte{0, byte(len(answered))}, answered...)
	for what, tc := range map[string]struct {
		first []byte
		after time.Duration // until the server closes
	}{
		"nothing sent":                {nil, 10 * time.Second},
		"half a length":               {whole[:1], 10 * time.Second},
		"half a query":                {whole[:20], 5 * time.Second},
		"a query, its answer unread":  {whole, 5 * time.Second},
		"a query and half of another": {append(whole[:len(whole):len(whole)], whole[:20]...), 5 * time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipes()
				srv, err := dnsserver.Listen(world(), dnsserver.Deps{
					Answer: steer, Log: slog.New(slog.DiscardHandler),
					Listen:       func(string, string) (net.Listener, error) { return ln, nil },
					ListenPacket: func(string, string) (net.PacketConn, error) { return silence{stop: make(chan struct{})}, nil },
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error)
				go func() { done <- srv.Run(ctx) }()

				c, closed := ln.dial()
				began := time.Now()
				go c.Write(tc.first)
				if got := (<-closed).Sub(began); got != tc.after {
					t.Errorf("closed after %v, want %v", got, tc.after)
				}
				c.Close()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A stranger with many addresses takes every connection there is and says nothing. Who has something to ask still can:
// at once, and later on the connection that was in use all the time.
func TestTCPIdleGiveWay(t *testing.T) {
	query, err := question("www.edge.example.com.", dns.TypeA, "").Pack()
	if err != nil {
		t.Fatal(err)
	}
	whole := append([]byte{0, byte(len(query))}, query...)
	ask := func(t *testing.T, c net.Conn) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write(whole); err != nil {
			t.Fatalf("ask: %v", err)
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(size[0])<<8|int64(size[1])); err != nil {
			t.Fatalf("half an answer: %v", err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		srv, err := dnsserver.Listen(world(), dnsserver.Deps{
			Answer: steer, Log: slog.New(slog.DiscardHandler),
			Listen:       func(string, string) (net.Listener, error) { return ln, nil },
			ListenPacket: func(string, string) (net.PacketConn, error) { return silence{stop: make(chan struct{})}, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- srv.Run(ctx) }()
		resolver, _ := ln.dial()
		ask(t, resolver)
		for i := range 2 * dnsserver.MaxConns {
			time.Sleep(time.Millisecond) // of the bent clock
			if i%100 == 99 {
				ask(t, resolver)
			}
			c, _ := ln.dialFrom(net.IPv4(198, 18, byte(i>>8), byte(i)))
			defer c.Close()
		}
		late, _ := ln.dialFrom(net.IPv4(203, 0, 113, 1))
		ask(t, late)
		ask(t, resolver)
		late.Close()
		resolver.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
