// Package lane stands in front of net/http on each HTTP/1 connection. Its gate reads every request head before
// net/http does, and lets through only what can be understood in one way (RFC 9112 §11.2): what is ambiguous is
// answered with 400 and the connection closed, so that no server behind us can be made to see another sequence
// of requests than we do.
//
// It is not a parser that others should use, and not a router: it looks at framing, syntax and size, and hands
// the very same bytes on.
//
//	gate := lane.NewGate(lane.Options{Log: log, Reg: reg, H2C: true})
//	srv := &http.Server{Handler: h, ConnState: gate.ConnState}
//	srv.Serve(gate.Listener(ln))
package lane

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of a [Gate]. The zero value is a gate with the defaults, silent and without metrics.
type Options struct {
	Log         *slog.Logger          // nil: silent
	Reg         prometheus.Registerer // nil: metrics are kept and registered nowhere
	MaxHead     int                   // longest request head in bytes; 0: 64 KiB. Longer ones get 431, or 414 without a line end
	HeadTimeout time.Duration         // from the first byte of a head to its last; 0: 10 s. A part of a head gets 408
	H2C         bool                  // let connections without TLS that open with the HTTP/2 preface through as they are
}

const (
	defaultMaxHead     = 64 << 10
	defaultHeadTimeout = 10 * time.Second

	// firstBuffer holds nearly every head there is; a connection that waits for a request holds no buffer.
	firstBuffer = 4 << 10
	// lingerFor and lingerBytes bound how long a refused connection is read on, so that the refusal is not lost
	// to a reset because of what the client was still sending (RFC 9112 §9.6).
	lingerFor   = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// Gate makes gated connections. It is safe for concurrent use and starts no goroutine.
type Gate struct {
	log         *slog.Logger
	maxHead     int
	headTimeout time.Duration
	h2c         bool
	metrics     *metrics
	buffers     sync.Pool // of *[]byte, firstBuffer long
}

// NewGate makes a gate.
func NewGate(o Options) *Gate {
	g := &Gate{log: o.Log, maxHead: o.MaxHead, headTimeout: o.HeadTimeout, h2c: o.H2C, metrics: newMetrics(o.Reg)}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.maxHead <= 0 {
		g.maxHead = defaultMaxHead
	}
	if g.headTimeout <= 0 {
		g.headTimeout = defaultHeadTimeout
	}
	g.buffers.New = func() any { b := make([]byte, firstBuffer); return &b }
	return g
}

// Conn puts the gate before c, which speaks HTTP/1: a clear connection, or one whose TLS handshake is over. The
// result has NetConn and CloseWrite, and ConnectionState when c has it, so that net/http sets Request.TLS. It is
// for one http.Server whose ConnState is, or calls, [Gate.ConnState]; without that, requests sent ahead and
// upgrades are misunderstood.
func (g *Gate) Conn(c net.Conn) net.Conn {
	gated := newConn(g, c)
	if s, ok := c.(connectionStater); ok {
		return &secureConn{conn: gated, tls: s}
	}
	gated.mayH2C = g.h2c
	return gated
}

// ConnState tells the gate where net/http is with a connection: between two requests, inside one, or out of it
// (hijacked). Connections of others are ignored.
func (g *Gate) ConnState(c net.Conn, s http.ConnState) {
	if gated, ok := c.(interface{ state(http.ConnState) }); ok {
		gated.state(s)
	}
}

// Listener puts the gate before every connection that ln accepts.
func (g *Gate) Listener(ln net.Listener) net.Listener { return &listener{Listener: ln, gate: g} }

type listener struct {
	net.Listener
	gate *Gate
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gate.Conn(c), nil
}

type connectionStater interface{ ConnectionState() tls.ConnectionState }

// secureConn is a gated connection inside TLS.
type secureConn struct {
	*conn
	tls connectionStater
}

// ConnectionState is what net/http puts into Request.TLS.
func (c *secureConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }
