package stream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/nearzone/nearzone/proxy/rtt"
)

// tcpSession is one client connection and its connection to a server. Only its own goroutine closes them.
type tcpSession struct {
	relay   *tcpRelay
	policy  *policy
	client  net.Conn
	server  net.Conn
	address netip.AddrPort // the client's
	began   time.Time
	cancel  context.CancelCauseFunc // with an ending as its cause
	counted [2]uint64               // bytes already in the metrics
}

func (s *tcpSession) run(ctx context.Context) {
	why := s.relayAll(ctx)
	s.sample()
	s.close(why)
	s.cancel(nil)
	s.policy.count.end(why, time.Since(s.began).Seconds())
	s.relay.leave(s)
}

// relayAll connects to a server and relays until both directions are over or the session has to end.
func (s *tcpSession) relayAll(ctx context.Context) ending {
	server, err := s.relay.dial(ctx, s.policy, "tcp", s.address.Addr())
	if ctx.Err() != nil {
		if err == nil {
			_ = server.Close()
		}
		return causeOf(ctx)
	}
	if err != nil {
		s.policy.count.drop(dropNoServer, 1)
		s.relay.noServer(s.policy, s.address, err)
		return endUnreachable
	}
	s.server = server
	if err := s.introduce(); err != nil {
		s.relay.lost(s.policy, s.address, server, err)
		return endReset
	}
	return s.watch(ctx)
}

// introduce sends the PROXY protocol header, if the server wants one.
func (s *tcpSession) introduce() error {
	header, err := proxyHeader(s.policy.proxy, "tcp", s.address, addrPort(s.client.LocalAddr()))
	if err != nil || len(header) == 0 {
		return err
	}
	_, err = s.server.Write(header)
	return err
}

// watch runs both directions and looks at the clock beside them. Two goroutines copy, so that the kernel can splice;
// what they have moved is read from the sockets, not counted on the way.
func (s *tcpSession) watch(ctx context.Context) ending {
	m := newMeter(s.client, s.server)
	over := make(chan half, 2)
	go m.copy(up, over)
	go m.copy(down, over)
	w := &tcpWatch{meter: m, movedAt: time.Now(), sampledAt: time.Now()}
	tick := time.NewTicker(min(max(s.policy.established/4, 10*time.Millisecond), s.relay.SampleEvery))
	defer tick.Stop()
	left, why, stop := 2, endClosed, ctx.Done()
	for left > 0 {
		fatal := endClosed
		select {
		case h := <-over:
			left--
			s.account(h.direction, h.bytes)
			if h.err != nil {
				fatal = endReset
			}
		case now := <-tick.C:
			fatal = s.look(w, now)
		case <-stop:
			stop, fatal = nil, causeOf(ctx)
		}
		if fatal != endClosed && why == endClosed {
			why = fatal
			s.sample() // while there is a socket to ask
			s.close(why)
		}
	}
	return why
}

// tcpWatch is what was seen at the last looks.
type tcpWatch struct {
	meter     *meter
	moved     uint64
	movedAt   time.Time
	sampledAt time.Time
}

// look is what happens at each tick of a live session.
func (s *tcpSession) look(w *tcpWatch, now time.Time) ending {
	s.account(up, w.meter.received(up))
	s.account(down, w.meter.received(down))
	if now.Sub(w.sampledAt) >= s.relay.SampleEvery {
		w.sampledAt = now
		s.sample()
	}
	if moved := w.meter.moved(); moved != w.moved {
		w.moved, w.movedAt = moved, now
	} else if now.Sub(w.movedAt) >= s.policy.established {
		return endIdle
	}
	return endClosed
}

// account brings the metrics of a direction to a total of n bytes.
func (s *tcpSession) account(d direction, n uint64) {
	if n > s.counted[d] {
		s.policy.count.bytes[d].Add(float64(n - s.counted[d]))
		s.counted[d] = n
	}
}

// sample reports the client's round trip.
func (s *tcpSession) sample() {
	if info, err := rtt.Of(s.client); err == nil && info.Min > 0 {
		s.relay.Observe(s.address.Addr(), info.Min)
	}
}

// close closes both connections. After anything but an orderly end both sides get a reset, so that neither takes what
// it has got for all there was.
func (s *tcpSession) close(why ending) {
	for _, c := range []net.Conn{s.client, s.server} {
		if c == nil {
			continue
		}
		if tcp := socketOf(c); tcp != nil && why != endClosed && why != endIdle {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// causeOf is why a session's context has ended.
func causeOf(ctx context.Context) ending {
	var why ending
	if errors.As(context.Cause(ctx), &why) {
		return why
	}
	return endStopped
}

// socketOf is the TCP socket under a connection, so that the kernel can splice; nil if there is none.
func socketOf(c net.Conn) *net.TCPConn {
	for range 8 {
		switch v := c.(type) {
		case *net.TCPConn:
			return v
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		default:
			return nil
		}
	}
	return nil
}

// addrPort is a socket's address, IPv4 always as such.
func addrPort(a net.Addr) netip.AddrPort {
	if v, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return unmap(v.AddrPort())
	}
	return netip.AddrPort{}
}
