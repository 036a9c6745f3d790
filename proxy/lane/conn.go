package lane

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// preface opens an HTTP/2 connection (RFC 9113 §3.4).
var preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// conn is a connection behind the gate. net/http reads from it what it would read from the socket, one proven
// request at a time: what comes after the current request stays in here until that one has been answered.
type conn struct {
	net.Conn
	gate   *Gate
	mayH2C bool

	answering atomic.Bool // net/http has a request and its answer is not complete
	through   atomic.Bool // not HTTP/1 any more: hijacked, or HTTP/2 by its preface

	// What follows belongs to the goroutine in Read. net/http has one at a time.
	in      []byte  // received and not yet handed on
	buf     *[]byte // the pooled buffer under in, if it fits there
	scanned int     // bytes of in that have been looked through for line ends
	begun   bool    // a first request has been let through
	blank   bool    // the one empty line before a request has been skipped
	proven  int     // bytes of in that are a head and may go on
	body    body    // of the current request
	dead    error   // what every further Read returns

	mu     sync.Mutex // guards user, head and closed, and orders the deadlines of the socket
	cond   sync.Cond  // on mu: user or closed has changed
	user   time.Time  // the read deadline net/http wants
	head   time.Time  // when the head under way must be complete
	closed bool
}

func newConn(g *Gate, c net.Conn) *conn {
	gated := &conn{Conn: c, gate: g}
	gated.cond.L = &gated.mu
	return gated
}

// NetConn is the connection under the gate.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends our direction, where the connection can.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close also wakes a Read that waits for nothing but a deadline.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.cond.Broadcast()
	c.mu.Unlock()
	return c.Conn.Close()
}

// state follows net/http (see Gate.ConnState).
func (c *conn) state(s http.ConnState) {
	switch s {
	case http.StateActive:
		c.answering.Store(true)
	case http.StateIdle:
		c.answering.Store(false)
	case http.StateHijacked:
		c.through.Store(true)
	}
}

// Read hands on bytes of the current request and, when that has been answered, of the next one.
func (c *conn) Read(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case c.through.Load():
		return c.readThrough(p)
	case c.dead != nil:
		return 0, c.dead
	case c.proven > 0:
		return c.readHead(p), nil
	case !c.body.done():
		return c.readBody(p)
	case c.answering.Load():
		return 0, c.hold(p)
	}
	if err := c.nextHead(p); err != nil {
		return 0, err
	}
	if c.through.Load() {
		return c.readThrough(p)
	}
	return c.readHead(p), nil
}

// readThrough gives what was held back, then reads the connection itself.
func (c *conn) readThrough(p []byte) (int, error) {
	if len(c.in) == 0 {
		c.release()
		return c.Conn.Read(p)
	}
	n := copy(p, c.in)
	c.consume(n)
	return n, nil
}

// readHead hands on the proven head, and what is already here of its body.
func (c *conn) readHead(p []byte) int {
	n := copy(p, c.in[:c.proven])
	c.consume(n)
	c.proven -= n
	if c.proven == 0 && len(c.in) > 0 && n < len(p) && !c.body.done() {
		n += c.takeHeld(p[n:])
	}
	return n
}

// takeHeld moves body bytes from in to p. A refusal kills the connection for the Reads that follow.
func (c *conn) takeHeld(p []byte) int {
	n, r := c.body.take(c.in[:min(len(c.in), len(p))])
	copy(p, c.in[:n])
	c.consume(n)
	c.breakOff(r)
	return n
}

// readBody hands on the next bytes of the body, from in or else without a copy from the connection.
func (c *conn) readBody(p []byte) (int, error) {
	if len(c.in) > 0 {
		n := c.takeHeld(p)
		if n == 0 {
			return 0, c.dead
		}
		return n, nil
	}
	c.release()
	got, err := c.Conn.Read(p[:c.body.want(len(p))])
	n, r := c.body.take(p[:got])
	c.breakOff(r)
	if n < got && c.dead == nil {
		c.keep(p[n:got])
	}
	if n == 0 && c.dead != nil {
		return 0, c.dead
	}
	if err != nil && !c.body.done() {
		c.dead = err // net/http may give up on a body after a deadline and go on: the rest is no request
	}
	return n, err
}

// breakOff notes that the framing of the body is broken: what follows must never be read as a request.
func (c *conn) breakOff(r Reason) {
	if r != None {
		c.gate.count(c, r)
		c.dead = &Refused{Reason: r}
	}
}

// hold is the read of net/http while a handler runs, which wants to learn of a disconnect. It keeps what the
// client sends ahead: a request is only judged when its turn has come, and what follows an Upgrade is no request.
func (c *conn) hold(p []byte) error {
	for len(c.in) < c.gate.maxHead {
		if err := c.fill(p); err != nil {
			return err
		}
	}
	return c.waitDeadline()
}

// waitDeadline waits until net/http sets a read deadline in the past, as it does after each answer, or closes.
func (c *conn) waitDeadline() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.closed && (c.user.IsZero() || time.Now().Before(c.user)) {
		c.cond.Wait()
	}
	if c.closed {
		return net.ErrClosed
	}
	return os.ErrDeadlineExceeded
}

// nextHead reads until a whole head has been proven, or refuses.
func (c *conn) nextHead(p []byte) error {
	c.blank = false
	if !c.begun || len(c.in) > 0 {
		c.startHead()
	}
	for {
		if done, err := c.examine(); done {
			return err
		}
		if err := c.fill(p); err != nil {
			return c.headError(err)
		}
		c.startHead()
	}
}

// examine looks at what has arrived: nothing to say yet, a proven head, the HTTP/2 preface, or a refusal.
func (c *conn) examine() (done bool, err error) {
	if !c.begun && c.mayH2C && len(c.in) > 0 && bytes.HasPrefix(preface, c.in[:min(len(c.in), len(preface))]) {
		if len(c.in) < len(preface) {
			return false, nil
		}
		c.endHead()
		c.through.Store(true)
		return true, nil
	}
	end, r := c.headEnd()
	if r == None && end == 0 && len(c.in) >= c.gate.maxHead {
		r = HeadTooLarge
		if bytes.IndexByte(c.in, '\n') < 0 {
			r = TargetTooLong
		}
	}
	if r == None && end == 0 {
		return false, nil
	}
	if r == None {
		r = c.admit(end)
	}
	if r != None {
		return true, c.refuse(r)
	}
	return true, nil
}

// admit parses the head in in[:end] and lets it on.
func (c *conn) admit(end int) Reason {
	if end > c.gate.maxHead {
		return HeadTooLarge
	}
	h, r := parseHead(c.in[:end])
	if r != None {
		return r
	}
	c.endHead()
	c.begun, c.proven, c.scanned, c.body = true, end, 0, newBody(h)
	c.gate.metrics.requests.Inc()
	return None
}

// headEnd looks for the empty line that ends the head, going on where it stopped, and refuses line ends that are
// not CRLF at once: who sends only LF would never send the end we wait for. One empty line before a request is
// passed over (RFC 9112 §2.2).
func (c *conn) headEnd() (end int, r Reason) {
	if !c.blank && bytes.HasPrefix(c.in, []byte("\r\n")) {
		c.consume(2)
		c.blank = true
	}
	for {
		i := bytes.IndexByte(c.in[c.scanned:], '\n')
		if i < 0 {
			return 0, None
		}
		line := c.in[c.scanned : c.scanned+i]
		if i == 0 || line[i-1] != '\r' {
			return 0, BareLF
		}
		begin := c.scanned
		c.scanned += i + 1
		switch {
		case i > 1:
		case begin == 0:
			return 0, BadRequestLine
		default:
			return c.scanned, None
		}
	}
}

// headError is what Read returns when no more of a head comes.
func (c *conn) headError(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !c.headExpired() {
		return err
	}
	if len(c.in) > 0 {
		return c.refuse(HeadTimeout)
	}
	c.dead = err
	return err
}

// fill reads more into in. p is memory to read into while there is nothing in in, so that a connection that waits
// needs no buffer of its own.
func (c *conn) fill(p []byte) error {
	if len(c.in) == 0 && (len(p) == 1 || len(p) >= firstBuffer) {
		c.release()
		n, err := c.Conn.Read(p)
		c.keep(p[:n])
		return unlessRead(n, err)
	}
	c.grow()
	n, err := c.Conn.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	return unlessRead(n, err)
}

// unlessRead lets bytes be looked at before the error that came with them; it comes again.
func unlessRead(n int, err error) error {
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// keep appends b to in.
func (c *conn) keep(b []byte) {
	if len(b) == 0 {
		return
	}
	if c.in == nil {
		c.grow()
	}
	c.in = append(c.in, b...)
}

// grow makes room behind in: a pooled buffer first, then twice as much up to a little over the largest head.
func (c *conn) grow() {
	switch {
	case c.buf == nil:
		c.buf = c.gate.buffers.Get().(*[]byte)
		c.in = append((*c.buf)[:0], c.in...)
	case len(c.in) == cap(c.in):
		c.in = append(make([]byte, 0, 2*cap(c.in)), c.in...)
	}
}

// consume drops n bytes from the front of in. The rest is moved to the front, which is rare and small.
func (c *conn) consume(n int) {
	rest := copy(c.in, c.in[n:])
	c.in = c.in[:rest]
}

// release gives the buffer back when nothing is in it.
func (c *conn) release() {
	if c.buf != nil && len(c.in) == 0 {
		c.gate.buffers.Put(c.buf)
		c.buf, c.in = nil, nil
	}
}
