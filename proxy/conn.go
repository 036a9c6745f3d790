package proxy

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/nearzone/nearzone/proxy/rtt"
)

const (
	// writePiece is how much one write deadline is for: at the default of a minute, a client slower than
	// 64 KiB in that time is taken for dead. Socket buffers make larger writes wait anyway.
	writePiece = 64 << 10
	// sampleInterval is how often a connection in use is measured.
	sampleInterval = 10 * time.Second
)

// conn is a client's connection: counted, watched for stalled writes, and measured.
type conn struct {
	net.Conn
	p      *Proxy
	peer   netip.Addr // of the socket
	client netip.Addr // the same, or what a PROXY header said
	direct bool       // no PROXY header comes: the socket is the client's own
	secure bool

	bytes   atomic.Int64 // both ways
	sampled atomic.Int64 // bytes at the last sample; -1 before the first
	fresh   atomic.Bool  // no request has come yet
	closed  atomic.Bool

	mu    sync.Mutex // guards user and armed
	user  time.Time  // the write deadline net/http wants
	armed time.Time  // when the socket's was last set
}

func (p *Proxy) newConn(raw net.Conn, secure bool) *conn {
	peer := addrOf(raw.RemoteAddr())
	c := &conn{Conn: raw, p: p, peer: peer, client: peer, direct: true, secure: secure}
	if p.state.Load().trust.sendsProxyHeader(peer) {
		c.direct = false
		c.Conn = proxyproto.NewConn(raw, proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(p.limits.Head))
	}
	c.fresh.Store(true)
	c.sampled.Store(-1)
	p.conns.add(c)
	p.metrics.conns[secure].Inc()
	p.metrics.accepted[secure].Inc()
	return c
}

// NetConn is the connection under this one, for the round-trip time.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends our direction.
func (c *conn) CloseWrite() error {
	under := c.Conn
	if pc, ok := under.(*proxyproto.Conn); ok {
		under = pc.Raw()
	}
	if w, ok := under.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return http.ErrNotSupported
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.bytes.Add(int64(n))
	c.p.metrics.received.Add(float64(n))
	return n, err
}

// Write gives up when the client takes nothing for Limits.Stall, however long the whole takes.
func (c *conn) Write(b []byte) (written int, err error) {
	for {
		c.armWrite(time.Now())
		n, err := c.Conn.Write(b[written:min(written+writePiece, len(b))])
		written += n
		c.bytes.Add(int64(n))
		c.p.metrics.sent.Add(float64(n))
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// armWrite puts the write deadline off. It does so only now and then: a deadline is a lock in the runtime.
func (c *conn) armWrite(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stall := c.p.limits.Stall; now.Sub(c.armed) > stall/8 {
		c.armed = now
		c.applyWrite(now.Add(stall))
	}
}

func (c *conn) applyWrite(t time.Time) error {
	if !c.user.IsZero() && (t.IsZero() || c.user.Before(t)) {
		t = c.user
	}
	return c.Conn.SetWriteDeadline(t)
}

// SetWriteDeadline is net/http's, beside which the stall counts.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && c.user.IsZero() {
		return nil
	}
	c.user, c.armed = t, time.Time{}
	return c.applyWrite(time.Time{})
}

// SetDeadline sets both.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetReadDeadline(t)
}

// Close takes a last sample.
func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.sample()
		c.p.conns.remove(c)
		c.p.metrics.conns[c.secure].Dec()
	}
	return c.Conn.Close()
}

// sample tells the round-trip time, unless nothing has moved since it was last told or the peer is not the client.
func (c *conn) sample() {
	bytes := c.bytes.Load()
	if c.p.deps.Observe == nil || !c.direct || c.sampled.Swap(bytes) == bytes || c.p.state.Load().trust.isProxy(c.peer) {
		return
	}
	if info, err := rtt.Of(c.Conn); err == nil && info.Min > 0 {
		c.p.metrics.samples.Inc()
		c.p.deps.Observe(c.client, info.Min)
	}
}

// sampleEvery measures all connections again and again.
func (p *Proxy) sampleEvery(ctx context.Context, interval time.Duration) {
	if p.deps.Observe == nil {
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.sampleAll()
		}
	}
}

func (p *Proxy) sampleAll() {
	for _, c := range p.conns.all() {
		c.sample()
	}
}

// registry is all open connections.
type registry struct {
	mu   sync.Mutex // guards open
	open map[*conn]struct{}
}

func (r *registry) add(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = struct{}{}
}

func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

func (r *registry) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

func (r *registry) all() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*conn, 0, len(r.open))
	for c := range r.open {
		all = append(all, c)
	}
	return all
}

// closeFresh closes connections on which no request has come, which net/http would wait five seconds for.
func (r *registry) closeFresh() {
	for _, c := range r.all() {
		if c.fresh.Load() {
			c.Close()
		}
	}
}

func (r *registry) closeAll() {
	for _, c := range r.all() {
		c.Close()
	}
}

// connOf finds our connection under what net/http has.
func connOf(c net.Conn) *conn {
	for c != nil {
		if own, ok := c.(*conn); ok {
			return own
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = w.NetConn()
	}
	return nil
}

type connKey struct{}

func (p *Proxy) connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, connOf(c))
}
