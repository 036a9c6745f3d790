package stream

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// datagrams are buffers for what servers send. A session takes one when there is something to read and gives it back
// at once: 20,000 waiting sessions hold none.
var datagrams = sync.Pool{New: func() any { b := make([]byte, maxDatagram); return &b }}

// server is a session's connected socket.
type server struct {
	conn    net.Conn
	address netip.AddrPort
	raw     syscall.RawConn // nil: conn.Read, with a buffer held while waiting
	try     func(fd uintptr) bool

	buf *[]byte // of the read under way
	n   int
	err error
}

func newServer(conn net.Conn) *server {
	s := &server{conn: conn, address: addrPort(conn.RemoteAddr())}
	if canRead {
		s.raw = rawOf(conn)
	}
	s.try = s.tryRead
	return s
}

// read waits for a datagram. The buffer goes back by release. It is for one goroutine.
func (s *server) read() (buf []byte, n int, err error) {
	if s.raw == nil {
		s.buf = datagrams.Get().(*[]byte)
		s.n, s.err = s.conn.Read(*s.buf)
	} else if err := s.raw.Read(s.try); err != nil {
		return nil, 0, err
	}
	if s.err != nil {
		datagrams.Put(s.buf)
		return nil, 0, s.err
	}
	return *s.buf, s.n, nil
}

// tryRead reads what is there; false means to wait for more, without a buffer.
func (s *server) tryRead(fd uintptr) bool {
	s.buf = datagrams.Get().(*[]byte)
	s.n, s.err = readSocket(fd, *s.buf)
	if s.err == syscall.EAGAIN {
		datagrams.Put(s.buf)
		return false
	}
	return true
}

func (s *server) release([]byte) { datagrams.Put(s.buf) }

// rawOf is the socket under a connection; nil if there is none.
func rawOf(c net.Conn) syscall.RawConn {
	for range 8 {
		switch v := c.(type) {
		case syscall.Conn:
			raw, err := v.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		default:
			return nil
		}
	}
	return nil
}
