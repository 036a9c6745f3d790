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
	conns map[net.Conn]netip.Prefix
	peers map[netip.Prefix]int
}

func newTCPConns() tcpConns {
	return tcpConns{conns: map[net.Conn]netip.Prefix{}, peers: map[netip.Prefix]int{}}
}

// add is false when there are too many already.
func (t *tcpConns) add(c net.Conn, from netip.Addr) bool {
	peer := peerOf(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.conns) >= maxConns || t.peers[peer] >= maxConnsPeer {
		return false
	}
	t.conns[c] = peer
	t.peers[peer]++
	return true
}

func (t *tcpConns) remove(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	peer := t.conns[c]
	delete(t.conns, c)
	if t.peers[peer]--; t.peers[peer] <= 0 {
		delete(t.peers, peer)
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
	if err != nil || !v.tcp.add(c, plain(from.Addr())) {
		v.srv.metrics.tcpShed.Inc()
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
