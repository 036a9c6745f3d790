// Package proxy is the HTTP edge: it accepts connections, finds the site and route of each request, and has it
// answered by the cache or forwarded to the origin. It speaks HTTP/1.1 and HTTP/2, clear and over TLS.
//
// It decides nothing about places, keeps no objects and knows no server: these are routing's, cache's and
// origin's. What it adds is the edge itself: limits in every phase, header hygiene, samples and the access log.
//
//	p, err := proxy.Listen(cfg, proxy.Deps{Zone: zone, Node: node, Cache: c, Origins: origins, Log: log, Reg: reg})
//	if err != nil { … }           // a port is taken
//	go p.Run(ctx)                 // until ctx ends
//	apply, err := p.Reload(next)  // any time; apply() swaps
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/certs"
	"github.com/nearzone/nearzone/proxy/lane"
	"github.com/nearzone/nearzone/proxy/origin"
)

// Deps is what an edge stands on. Cache and Origins are needed, the rest may be left out.
type Deps struct {
	Zone, Node string
	Cache      *cache.Cache
	Origins    *origin.Set
	Certs      *certs.Certs // needed with listen.https

	// Observe gets round-trip times of clients that are connected directly; nil: nobody wants them.
	Observe func(client netip.Addr, rtt time.Duration)
	// Beacon gets what a client measured to a zone; its error is the client's to fix. nil: the path is not there.
	Beacon func(client netip.Addr, zone string, rtt time.Duration) error
	// Access gets the access log, one JSON object a line, from one goroutine; nil: none.
	Access io.Writer

	Listen func(network, address string) (net.Listener, error) // nil: net.Listen without Multipath TCP
	Log    *slog.Logger                                        // nil: slog.Default()
	Reg    prometheus.Registerer                               // nil: metrics are registered nowhere
	Limits Limits
}

// Proxy is one node's HTTP edge. All methods may be called concurrently, Run once.
type Proxy struct {
	deps    Deps
	limits  Limits
	log     *slog.Logger
	metrics *metrics
	gate    *lane.Gate
	access  *accessLog
	beacons *beaconLimit
	via     *viaTransport
	conns   registry
	feed    *feed
	server  *http.Server
	tls     *tls.Config        // one for all connections: it has the session tickets' keys
	abandon context.CancelFunc // ends the context of every request
	buffers bufferPool

	state    atomic.Pointer[state]
	draining atomic.Bool
	finished atomic.Bool  // Run ends: nothing new is taken in
	requests atomic.Int64 // under way, upgraded connections included

	mu      sync.Mutex // guards doors and serving, and makes reloads one after the other
	doors   map[doorKey]*door
	pending map[doorKey]*door // of the last Reload, until its apply
	serving bool
	doorsWG sync.WaitGroup // accept loops and the connections they have not handed on
}

// state is one configuration made ready for requests. It never changes.
type state struct {
	cfg   *config.Config
	sites *siteTable
	trust trust
}

// Listen binds the addresses of listen.http and listen.https. Nothing is served before Run.
func Listen(cfg *config.Config, d Deps) (*Proxy, error) {
	p := newProxy(d)
	st, err := p.newState(cfg)
	if err != nil {
		return nil, err
	}
	if p.doors, err = p.bind(cfg, nil); err != nil {
		return nil, err
	}
	p.state.Store(st)
	p.access.off.Store(cfg.Log.Access == "off")
	return p, nil
}

func newProxy(d Deps) *Proxy {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Listen == nil {
		d.Listen = listenTCP
	}
	m := newMetrics(d.Reg)
	p := &Proxy{
		deps: d, limits: d.Limits.orDefaults(), log: d.Log, metrics: m,
		access: newAccessLog(d.Access, m), beacons: newBeaconLimit(), feed: newFeed(),
	}
	p.via = newViaTransport(m)
	p.gate = lane.NewGate(lane.Options{Log: d.Log, Reg: d.Reg, MaxHead: p.limits.HeadBytes, HeadTimeout: p.limits.Head, H2C: true})
	p.conns.open = map[*conn]struct{}{}
	p.server = p.newServer()
	if d.Certs != nil {
		p.tls = d.Certs.TLSConfig()
	}
	return p
}

// listenTCP leaves Multipath TCP off: its sockets have no TCP_INFO.
func listenTCP(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), network, address)
}

func (p *Proxy) newState(cfg *config.Config) (*state, error) {
	if cfg.Listen.HTTPS != "" && p.deps.Certs == nil {
		return nil, fmt.Errorf("listen.https %q: there are no certificates", cfg.Listen.HTTPS)
	}
	st := &state{cfg: cfg, trust: newTrust(cfg)}
	st.sites = p.newSiteTable(cfg)
	return st, nil
}

// newServer sets net/http up with a limit for every phase. The longer ones are by progress and not here: see
// upload for bodies and conn for writes.
func (p *Proxy) newServer() *http.Server {
	base, cancel := context.WithCancel(context.Background())
	p.abandon = cancel
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           p.handler(),
		Protocols:         protocols,
		ReadHeaderTimeout: p.limits.Head + time.Second, // the gate's own is first, and answers
		IdleTimeout:       p.limits.Idle,
		MaxHeaderBytes:    p.limits.HeadBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          p.limits.Streams,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
			SendPingTimeout:               p.limits.Idle,
			PingTimeout:                   p.limits.Handshake,
			WriteByteTimeout:              p.limits.Stall,
		},
		DisableGeneralOptionsHandler: true,
		ConnState:                    p.gate.ConnState,
		ConnContext:                  p.connContext,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ErrorLog:                     slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
}

// handler answers ACME's HTTP-01 before anything of ours sees the request.
func (p *Proxy) handler() http.Handler {
	if p.deps.Certs == nil {
		return http.HandlerFunc(p.serve)
	}
	return p.deps.Certs.HTTPChallenge(http.HandlerFunc(p.serve))
}

// Reload makes cfg ready and binds addresses that are new; apply takes it into use. Requests under way keep the
// configuration they began with, connections go on, listeners whose address stays are kept. Without a call of
// apply, new listeners stay open and unused until the next Reload; only the latest apply is of use.
func (p *Proxy) Reload(cfg *config.Config) (apply func(), err error) {
	st, err := p.newState(cfg)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished.Load() {
		return nil, errors.New("reload: the edge has stopped")
	}
	closeUnless(p.pending, p.doors)
	doors, err := p.bind(cfg, p.doors)
	if p.pending = doors; err != nil {
		return nil, err
	}
	return func() {
		p.state.Store(st)
		p.access.off.Store(cfg.Log.Access == "off")
		p.swapDoors(doors)
	}, nil
}

// Drain makes clients leave: from now on every answer ends its connection (`Connection: close`, GOAWAY), and
// /.nearzone/health is 503. New connections are still accepted.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Draining reports whether Drain has been called.
func (p *Proxy) Draining() bool { return p.draining.Load() }

// Undrain takes Drain back.
func (p *Proxy) Undrain() { p.draining.Store(false) }
