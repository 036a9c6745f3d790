package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/config"
)

const (
	idlePerServer   = 256              // idle connections kept to one address
	idleFor         = 90 * time.Second // and how long
	maxHead         = 256 << 10        // of a response; 1xx ones by themselves
	continueFor     = time.Second      // how long a body waits for 100 (Continue)
	retryDownAfter  = time.Second      // between connection attempts to a server that is down
	quietBefore     = 5 * time.Second  // TCP keep-alive: a half-open connection is found within
	keepAliveEvery  = 2 * time.Second  // quietBefore + keepAliveProbes * keepAliveEvery
	keepAliveProbes = 3
)

// key tells servers of a pool apart: one per address of one configured entry.
type key struct {
	config.Server
	addr netip.Addr
}

func (k key) scheme() string {
	if k.Scheme == "https" {
		return "https"
	}
	return "http"
}

func (k key) addrPort() netip.AddrPort { return netip.AddrPortFrom(k.addr, k.Port) }

// named reports whether the entry is a hostname.
func (k key) named() bool { return literal(k.Host) != k.addr }

// String is the entry as configured, with the address when it is a hostname.
func (k key) String() string {
	s := net.JoinHostPort(k.Host, fmt.Sprint(k.Port))
	if k.Scheme != "" {
		s = k.Scheme + "://" + s
	}
	if k.named() {
		s += " (" + k.addr.String() + ")"
	}
	return s
}

// literal is the address that a host is, or the zero Addr for a hostname.
func literal(host string) netip.Addr {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// server is one address of an origin, with its connections. It lives as long as any pool wants the address with
// the same transport settings, whatever else of the origin changes.
type server struct {
	key
	id      string // in the Checker
	name    string // key.String, made once
	address string // ip:port, to dial and to key connections by
	seed    uint64 // for rendezvous, the same on every node
	origin  string

	up       func() bool
	report   func(ok bool) // an outcome of real traffic
	timeouts config.OriginTimeouts
	metrics  *originMetrics
	make     func() *http.Transport         // of the kind in http
	http     atomic.Pointer[http.Transport] // h1 and h2, or h2c alone
	upgrades *http.Transport                // h1 alone, for requests with Upgrade
	checkTLS *tls.Config                    // for checks by https

	inFlight atomic.Int64
	retired  atomic.Bool
	lastHead atomic.Int64 // when a response's head last came, Unix nanoseconds
	failed   atomic.Bool  // the last connection attempt failed
	nextTry  atomic.Int64 // when another may be made while down, Unix nanoseconds
}

func newServer(origin string, k key, t config.OriginTimeouts, m material, tlsName string, metrics *originMetrics) *server {
	s := &server{
		key: k, name: k.String(), address: k.addrPort().String(), seed: hashOf(k.scheme() + "://" + k.addrPort().String()),
		origin: origin, timeouts: t, metrics: metrics,
	}
	s.id = origin + " " + s.name
	config := m.forServer(tlsName, "h2", "http/1.1")
	s.make = func() *http.Transport { return s.transport(config) }
	s.upgrades = s.make()
	switch k.Scheme {
	case "https":
		s.upgrades = s.transport(m.forServer(tlsName, "http/1.1"))
		s.checkTLS = m.forServer(tlsName)
	case "h2c":
		s.make = func() *http.Transport {
			t := s.transport(nil)
			t.Protocols = new(http.Protocols)
			t.Protocols.SetUnencryptedHTTP2(true)
			return t
		}
	}
	s.http.Store(s.make())
	return s
}

func (s *server) transport(config *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.connect(ctx, nil)
		},
		// TLS is ours so that one deadline spans connect and handshake.
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.connect(ctx, config)
		},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the client's Accept-Encoding is the only one
		MaxIdleConnsPerHost:    idlePerServer,
		IdleConnTimeout:        idleFor,
		ResponseHeaderTimeout:  s.timeouts.FirstByte,
		ExpectContinueTimeout:  continueFor,
		MaxResponseHeaderBytes: maxHead,
	}
}

// roundTripper is the transport for a request.
func (s *server) roundTripper(req *http.Request) *http.Transport {
	if req.Header.Get("Upgrade") != "" {
		return s.upgrades
	}
	return s.http.Load()
}

// renew puts a new transport in the place of one whose connections have stopped to answer. HTTP/2 would go on to
// send requests over a dead connection until TCP gives up, a quarter of an hour later. It is left alone when
// another answer came since the request began: then it was the request.
func (s *server) renew(dead *http.Transport, began time.Time) {
	if dead != s.upgrades && s.lastHead.Load() < began.UnixNano() && s.http.CompareAndSwap(dead, s.make()) {
		dead.CloseIdleConnections()
	}
}

// mayConnect reports whether a connection may be attempted now: always while the server is up or its last
// attempt succeeded, else once a second. It does not take that turn.
func (s *server) mayConnect(now time.Time) bool {
	return !s.failed.Load() || s.up() || now.UnixNano() >= s.nextTry.Load()
}

func (s *server) isUp() bool { return s.up() }

// takeTurn is mayConnect for the one who goes: of those who ask at once, one gets it.
func (s *server) takeTurn(now time.Time) bool {
	if !s.failed.Load() || s.up() {
		return true
	}
	next := s.nextTry.Load()
	return now.UnixNano() >= next && s.nextTry.CompareAndSwap(next, now.Add(retryDownAfter).UnixNano())
}

// connect makes a connection, with TLS when config is given, within timeouts.connect.
func (s *server) connect(ctx context.Context, config *tls.Config) (net.Conn, error) {
	began := time.Now()
	if !s.takeTurn(began) {
		return nil, &connectError{errors.New("down, and tried less than a second ago"), true}
	}
	ctx, cancel := withTimeout(ctx, s.timeouts.Connect)
	defer cancel()
	c, err := s.dial(ctx, config)
	if err != nil {
		s.connectFailed(err)
		return nil, &connectError{explainTLS(s.origin, err), false}
	}
	s.failed.Store(false)
	s.metrics.connect.Observe(time.Since(began).Seconds())
	return c, nil
}

// connectFailed holds a failure against the server, unless it was the caller who gave up.
func (s *server) connectFailed(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	s.nextTry.Store(time.Now().Add(retryDownAfter).UnixNano())
	s.failed.Store(true)
	s.metrics.connectFailures.Inc()
	s.report(false)
}

func (s *server) dial(ctx context.Context, config *tls.Config) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: quietBefore, Interval: keepAliveEvery, Count: keepAliveProbes,
	}}
	raw, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil || config == nil {
		return raw, err
	}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return c, nil
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// release ends one request's use of the server.
func (s *server) release() {
	if s.inFlight.Add(-1) == 0 && s.retired.Load() {
		s.closeIdle()
	}
}

// retire closes idle connections, and those of requests in flight when they end.
func (s *server) retire() {
	s.retired.Store(true)
	s.closeIdle()
}

func (s *server) closeIdle() {
	s.http.Load().CloseIdleConnections()
	s.upgrades.CloseIdleConnections()
}

// hashOf is FNV-1a; mix spreads it.
func hashOf(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}

// mix is the finaliser of SplitMix64: near inputs come out far apart.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
