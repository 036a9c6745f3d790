package stream

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxEarly is how many datagrams wait for the server's socket, which takes a name lookup at worst. A client that
	// sends 60 a second fills it in a quarter of a second.
	maxEarly = 16
	// unreachablePause is how long a client whose server cannot be connected to is dropped before the next try.
	unreachablePause = time.Second
)

// udpSession is one client and its socket to a server.
type udpSession struct {
	relay  *udpRelay
	policy *policy
	flow   flow
	header []byte // PROXY protocol; empty if the server wants none
	oob    []byte // makes answers come from flow.local; empty if the socket is bound to it
	began  time.Time
	cancel context.CancelCauseFunc

	active    atomic.Int64 // latest datagram in either direction: time since began
	replied   atomic.Bool
	confirmed atomic.Bool            // the client has sent something after an answer, so its address is its own
	server    atomic.Pointer[server] // nil until connected

	mu    sync.Mutex // guards all below
	early [][]byte   // datagrams that came before the server's socket was there
	over  bool
}

// run is the session's own goroutine: it connects to a server, then passes on what that one sends.
func (s *udpSession) run(ctx context.Context) {
	defer s.cancel(nil)
	conn, err := s.relay.dial(ctx, s.policy, "udp", s.flow.client.Addr())
	if err != nil {
		s.unreachable(ctx, err)
		return
	}
	defer conn.Close()
	srv := newServer(conn)
	if !s.connected(srv) {
		return
	}
	s.end(s.listen(srv))
}

// connected sends what has waited, in order, and lets the receiving goroutine send by itself from then on; false if
// the session is over.
func (s *udpSession) connected(srv *server) bool {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return false
	}
	_ = srv.conn.SetReadDeadline(time.Now().Add(s.policy.unreplied))
	room := make([]byte, maxHeader, maxHeader+2048)
	var err error
	for _, datagram := range s.early {
		err = errors.Join(err, s.write(srv, append(room, datagram...)))
	}
	s.early = nil
	s.server.Store(srv)
	s.mu.Unlock()
	if errors.Is(err, syscall.ECONNREFUSED) {
		s.refused(srv)
	}
	return true
}

// unreachable keeps the session for a while, so that a client that goes on sending costs no connect a datagram.
func (s *udpSession) unreachable(ctx context.Context, err error) {
	if ctx.Err() == nil {
		s.relay.noServer(s.policy, s.flow.client, err)
		select {
		case <-ctx.Done():
		case <-time.After(unreachablePause):
		}
	}
	s.end(endUnreachable)
}

// forward passes a client's datagram on; packet has maxHeader bytes of room in front. False means that the session is
// over and the datagram may begin another.
func (s *udpSession) forward(packet []byte) bool {
	s.touch()
	if s.replied.Load() && !s.confirmed.Load() {
		s.confirmed.Store(true)
	}
	if srv := s.server.Load(); srv != nil {
		return s.send(srv, packet)
	}
	return s.hold(packet)
}

// hold keeps a datagram until the server's socket is there.
func (s *udpSession) hold(packet []byte) bool {
	s.mu.Lock()
	srv := s.server.Load()
	if s.over || srv != nil {
		s.mu.Unlock()
		return srv != nil && s.send(srv, packet)
	}
	defer s.mu.Unlock()
	if len(s.early) == maxEarly {
		s.policy.count.drop(dropWaiting, 1)
	} else {
		s.early = append(s.early, append([]byte(nil), packet[maxHeader:]...))
	}
	return true
}

// send passes a datagram to the server; false means that it did not leave, because the session is over now.
func (s *udpSession) send(srv *server, packet []byte) bool {
	switch err := s.write(srv, packet); {
	case err == nil:
		return true
	case errors.Is(err, syscall.ECONNREFUSED): // of an earlier datagram
		s.refused(srv)
		return false
	default:
		return !errors.Is(err, net.ErrClosed)
	}
}

// write puts the header in front of a datagram, writes it and counts what became of it.
func (s *udpSession) write(srv *server, packet []byte) error {
	start := maxHeader - len(s.header)
	copy(packet[start:], s.header)
	_, err := srv.conn.Write(packet[start:])
	switch {
	case err == nil:
		s.policy.count.relayed(up, len(packet)-maxHeader)
	case errors.Is(err, syscall.EMSGSIZE):
		s.policy.count.drop(dropTooBig, 1)
	case !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNREFUSED):
		s.policy.count.drop(dropSend, 1)
	}
	return err
}

// refused ends the session because nothing listens at its server, and holds that against the server: a few refusals
// in a row and new sessions pass it over.
func (s *udpSession) refused(srv *server) {
	s.relay.servers.report(s.policy.origin, srv.address, false)
	s.end(endRefused)
}

// listen passes the server's datagrams to the client until the session has to end.
func (s *udpSession) listen(srv *server) ending {
	for {
		buf, n, err := srv.read()
		switch {
		case err == nil:
			s.reply(srv, buf[:n])
			srv.release(buf)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !s.renew(srv) {
				return endIdle
			}
		case errors.Is(err, net.ErrClosed):
			return endStopped // end was called, and knows why
		case errors.Is(err, syscall.ECONNREFUSED):
			s.refused(srv)
			return endRefused
		default:
			s.relay.lost(s.policy, s.flow.client, srv.conn, err)
			return endReset
		}
	}
}

// reply passes a datagram to the client.
func (s *udpSession) reply(srv *server, datagram []byte) {
	s.touch()
	if !s.replied.Load() {
		s.first(srv)
	}
	_, _, err := s.relay.conn.WriteMsgUDPAddrPort(datagram, s.oob, s.flow.client)
	switch {
	case err == nil:
		s.policy.count.relayed(down, len(datagram))
	case errors.Is(err, syscall.EMSGSIZE):
		s.policy.count.drop(dropTooBig, 1)
	default:
		s.policy.count.drop(dropSend, 1)
	}
}

// first is what the first answer changes: the server is there, and the session is established.
func (s *udpSession) first(srv *server) {
	s.replied.Store(true)
	s.relay.servers.report(s.policy.origin, srv.address, true)
	if s.policy.established < s.policy.unreplied {
		_ = srv.conn.SetReadDeadline(time.Now().Add(s.policy.established))
	}
}

func (s *udpSession) touch() { s.active.Store(int64(time.Since(s.began))) }

// renew sets the deadline to when the session would be idle; false if it is. Datagrams do not move the deadline, they
// only leave their time.
func (s *udpSession) renew(srv *server) bool {
	idle := s.policy.unreplied
	if s.replied.Load() {
		idle = s.policy.established
	}
	due := s.began.Add(time.Duration(s.active.Load()) + idle)
	if !due.After(time.Now()) {
		return false
	}
	return srv.conn.SetReadDeadline(due) == nil
}

// end takes the session off the table and closes its socket. The first reason counts.
func (s *udpSession) end(why ending) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.over = true
	srv, waiting := s.server.Load(), len(s.early)
	s.early = nil
	s.mu.Unlock()
	if srv != nil {
		_ = srv.conn.Close()
	}
	s.policy.count.drop(dropNoServer, waiting)
	s.policy.count.end(why, time.Since(s.began).Seconds())
	s.cancel(why)
	s.relay.forget(s)
}
