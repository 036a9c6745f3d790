package stream

import (
	"io"
	"net"
	"sync/atomic"
)

// meter copies both directions of a session and knows how far they have come.
//
// Between two TCP sockets the copying is the kernel's (splice), which says nothing until it is over; how far it has
// come is then read from the sockets (TCP_INFO). Elsewhere the bytes are counted as they pass.
type meter struct {
	ends   [2]net.Conn    // by the direction that it sends: client, server
	kernel [2]byteCounter // the same sockets; nil where the bytes are counted here
	passed [2]atomic.Uint64
}

// byteCounter reads from a socket how many bytes it has received, and how many of those it sent were acknowledged.
type byteCounter func() (received, acked uint64, err error)

// half is one direction that is over.
type half struct {
	direction direction
	bytes     uint64
	err       error
}

func newMeter(client, server net.Conn) *meter {
	m := &meter{ends: [2]net.Conn{client, server}}
	c, s := socketOf(client), socketOf(server)
	if c == nil || s == nil {
		return m
	}
	counters := [2]byteCounter{counterOf(c), counterOf(s)}
	if counters[up] != nil && counters[down] != nil {
		m.ends, m.kernel = [2]net.Conn{c, s}, counters
	}
	return m
}

// copy relays one direction to its end and passes the end on.
func (m *meter) copy(d direction, over chan<- half) {
	src, dst := m.ends[d], m.ends[1-d]
	var from io.Reader = src
	if m.kernel[d] == nil {
		from = countingReader{src, &m.passed[d]}
	}
	n, err := io.Copy(dst, from)
	if err == nil {
		if c, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite() // an error here shows in the other direction, too
		}
	}
	over <- half{d, uint64(n), err}
}

// received is how many bytes have come from the sender of a direction.
func (m *meter) received(d direction) uint64 {
	if m.kernel[d] == nil {
		return m.passed[d].Load()
	}
	n, _, _ := m.kernel[d]()
	return n
}

// moved is a number that changes whenever a byte moves in either direction, those that a slow receiver takes from
// our buffers included.
func (m *meter) moved() (sum uint64) {
	for d := range m.kernel {
		if m.kernel[d] == nil {
			sum += m.passed[d].Load()
			continue
		}
		received, acked, _ := m.kernel[d]()
		sum += received + acked
	}
	return sum
}

type countingReader struct {
	io.Reader
	n *atomic.Uint64
}

func (r countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(uint64(n))
	return n, err
}
