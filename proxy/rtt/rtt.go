// Package rtt reads the round-trip time of one live TCP connection from the kernel. It keeps no state, sends
// nothing and waits for nothing.
//
//	info, err := rtt.Of(conn) // *net.TCPConn, or anything around one that has NetConn()
//	if err == nil {
//		observe(client, info.Min)
//	}
//
// The kernel knows a first round trip as soon as the handshake is over, so Of works on a connection that has
// just been accepted. A connection that came through a load balancer or a proxy has the round trip to that
// one: whether the peer is the client is the caller's to know.
package rtt

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Info is what the kernel knows about one connection's round trips.
type Info struct {
	// Min is the lowest round trip in the kernel's window (net.ipv4.tcp_min_rtt_wlen, 300 s by default):
	// distance without queues. Where the kernel keeps no minimum it is the same as Smoothed.
	Min time.Duration
	// Smoothed is the kernel's running mean (RFC 6298 §2).
	Smoothed time.Duration
}

var (
	// ErrUnsupported means that this platform tells nobody the round trip of a connection.
	ErrUnsupported = errors.New("round-trip time of a connection is not available on this platform")
	// ErrNotTCP means that there is no TCP socket under the connection.
	ErrNotTCP = errors.New("not a TCP connection")
	// ErrNoSample means that the kernel has not seen a round trip yet.
	ErrNoSample = errors.New("connection has no round trip yet")
)

// maxWrappers bounds the chain of NetConn() calls, so that a wrapper that returns itself does no harm.
const maxWrappers = 16

// Of reads the round-trip time of c, unwrapping NetConn() chains (*tls.Conn and our own wrappers have it).
// It is one system call and safe beside reads, writes and Close.
func Of(c net.Conn) (Info, error) {
	raw, err := socket(c)
	if err != nil {
		return Info{}, err
	}
	var info Info
	var sockErr error
	if err := raw.Control(func(fd uintptr) { info, sockErr = read(fd) }); err != nil {
		return Info{}, err
	}
	return info, sockErr
}

// socket finds the TCP socket under c.
func socket(c net.Conn) (syscall.RawConn, error) {
	for range maxWrappers {
		if tcp, ok := c.(*net.TCPConn); ok {
			return tcp.SyscallConn()
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = w.NetConn()
	}
	return nil, ErrNotTCP
}
