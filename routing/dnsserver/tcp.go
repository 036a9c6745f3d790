package dnsserver

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What TCP clients may hold. A resolver needs one or two connections; a thousand of them, each with its
// buffers, is about 10 MiB.
const (
	maxConns       = 1000
	maxConnsPeer   = 50 // of one address; for IPv6 of one /64
	tcpIdle        = 10 * time.Second
	tcpMessageTime = 5 * time.Second // for the rest of a message that has begun, and for writing an answer
)

// tcpConns are the open connections of one service.
type tcpConns struct {
	mu    sync.Mutex // guards what follows
	conns map[net.Conn]*tcpUse
	peers map[netip.Prefix]int
}

// tcpUse is who has a connection and when it was last of use.
type tcpUse struct {
	peer netip.Prefix
	last time.Time // a query came; at first, when it was accepted
}

func newTCPConns() tcpConns {
	return tcpConns{conns: map[net.Conn]*tcpUse{}, peers: map[netip.Prefix]int{}}
}

// add is false when the client has too many already. When all have, one that is idle gives way (RFC 7766 §6.2.3): a
// stranger with many addresses could else keep every resolver out by opening connections and saying nothing.
func (t *tcpConns) add(c net.Conn, from netip.Addr) (ok, displaced bool) {
	peer := peerOf(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers[peer] >= maxConnsPeer {
		return false, false
	}
	if displaced = len(t.conns) >= maxConns; displaced {
		t.displace()
	}
	t.conns[c] = &tcpUse{peer: peer, last: time.Now()}
	t.peers[peer]++
	return true, displaced
}

// displaceSample is how many connections are looked at for the one to close; Go's maps begin anywhere.
const displaceSample = 32

// displace closes the connection of a few that was of no use for longest. mu is held.
func (t *tcpConns) displace() {
	var idlest net.Conn
	looked := 0
	for c, use := range t.conns {
		if idlest == nil || use.last.Before(t.conns[idlest].last) {
			idlest = c
		}
		if looked++; looked == displaceSample {
			break
		}
	}
	t.forget(idlest)
	_ = idlest.Close() // which ends its goroutine
}

// used notes that a query came.
func (t *tcpConns) used(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if use := t.conns[c]; use != nil {
		use.last = time.Now()
	}
}

func (t *tcpConns) remove(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(c)
}

// forget does nothing for a connection that was displaced. mu is held.
func (t *tcpConns) forget(c net.Conn) {
	use := t.conns[c]
	if use == nil {
		return
	}
	delete(t.conns, c)
	if t.peers[use.peer]--; t.peers[use.peer] <= 0 {
		delete(t.peers, use.peer)
	}
}

// interrupt ends every read; what has been read is still answered.
func (t *tcpConns) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		_ = c.SetReadDeadline(past)
	}
}

func peerOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // bits fits the family; an invalid address has the zero Prefix
	return p
}

// serveTCP accepts connections until the listener closes.
func (v *service) serveTCP(ln net.Listener) {
	var wait backoff
	for {
		c, err := ln.Accept()
		if err == nil {
			wait.reset()
			v.accept(c)
			continue
		}
		if v.stopping.Load() || errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors, as a rule: waiting lets some be closed.
		v.srv.log.Warn("dns connection not accepted", "address", ln.Addr(), "err", err)
		if !wait.sleep(v.done) {
			return
		}
	}
}

func (v *service) accept(c net.Conn) {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		_ = c.Close() // steering needs an address
		return
	}
	ok, displaced := v.tcp.add(c, plain(from.Addr()))
	if !ok || displaced {
		v.srv.metrics.tcpShed.Inc()
	}
	if !ok {
		_ = c.Close()
		return
	}
	v.work.Go(func() { v.serveConn(c, plain(from.Addr())) })
}

// serveConn answers the queries of one connection in their order (RFC 7766 §6.2.1.1 allows pipelining).
func (v *service) serveConn(c net.Conn, from netip.Addr) {
	v.srv.metrics.tcpConns.Inc()
	defer v.srv.metrics.tcpConns.Dec()
	defer v.tcp.remove(c)
	defer c.Close()
	in := make([]byte, maxQuery)
	out := make([]byte, 2+maxQuery)
	for {
		pkt, err := v.readQuery(c, in)
		if err != nil {
			return
		}
		v.tcp.used(c)
		answer := v.srv.respond(pkt, from, overTCP, out[2:])
		if answer == nil || !v.writeAnswer(c, out, answer) {
			return // who sends what is no query here has lost the thread
		}
	}
}

// readQuery reads one message. One longer than any query is an error, since the stream cannot be trusted.
func (v *service) readQuery(c net.Conn, in []byte) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(tcpIdle))
	if v.stopping.Load() { // after the deadline, which else might undo that of interrupt
		return nil, net.ErrClosed
	}
	if _, err := io.ReadFull(c, in[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(in))
	if n > len(in) {
		v.srv.metrics.malformed.WithLabelValues("oversize").Inc()
		return nil, dns.ErrBuf
	}
	_ = c.SetReadDeadline(time.Now().Add(tcpMessageTime))
	if _, err := io.ReadFull(c, in[:n]); err != nil {
		return nil, err
	}
	return in[:n], nil
}

// writeAnswer sends the length and the message in one segment (RFC 7766 §8). answer is in out[2:] unless it
// did not fit there.
func (v *service) writeAnswer(c net.Conn, out, answer []byte) bool {
	framed := out[:2+min(len(answer), len(out)-2)]
	if len(answer) > len(out)-2 || &answer[0] != &out[2] {
		framed = append(make([]byte, 2, 2+len(answer)), answer...)
	}
	binary.BigEndian.PutUint16(framed, uint16(len(answer)))
	_ = c.SetWriteDeadline(time.Now().Add(tcpMessageTime))
	if _, err := c.Write(framed); err != nil {
		v.srv.metrics.unsent.Inc()
		return false
	}
	return true
}
