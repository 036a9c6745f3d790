// Package dnsserver is the authoritative DNS server of a node, over UDP and TCP.
//
// It answers for the domains of the configuration: static records, name servers made from the fleet's nodes,
// and steered names, whose addresses come from package routing by the client's network (EDNS Client Subnet,
// RFC 7871) or the resolver's address. It decides no place itself, resolves nothing for anyone, and transfers
// no zones.
//
//	srv, err := dnsserver.Listen(cfg, dnsserver.Deps{Answer: router.Answer, Zones: zones, Log: log, Reg: reg})
//	err = srv.Run(ctx)
//
// What it is asked comes from strangers: a packet costs time linear in its own length, is answered with at
// most 1232 bytes over UDP, and never starts a goroutine. Over TCP connections, their idle time and their
// number are bounded.
package dnsserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

// Deps is what a Server needs of others. Answer is required.
type Deps struct {
	// Answer steers one client. name is as configured, so a wildcard comes as `*.play.example.com`. It is
	// called from many goroutines for every address question about a steered name.
	Answer func(name string, client netip.Addr) (routing.Answer, bool)
	// Zones has the nodes that dns.servers makes name servers of. It is called by Listen, by Rebuild, and when
	// a reload is applied; it must tell of the new zones by then. Default: the zones of the configuration.
	Zones func() []routing.Zone

	Listen       func(network, address string) (net.Listener, error)   // default net.Listen
	ListenPacket func(network, address string) (net.PacketConn, error) // default net.ListenPacket
	Log          *slog.Logger                                          // default slog.Default()
	Reg          prometheus.Registerer                                 // nil: nothing is counted for anyone to see
}

// Server is a bound DNS server; see [Listen]. Its methods may be called concurrently.
type Server struct {
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	data    atomic.Pointer[dataset]
	moved   chan struct{} // cap 1: current has changed

	panicLog rate.Sometimes // strangers may cause them

	mu      sync.Mutex // guards what follows
	cfg     *config.Config
	current *sockets
	pending *sockets // bound by a Reload, not yet applied
}

// Listen compiles the zones of cfg and binds cfg.DNS.Listen, UDP and TCP. It serves nothing until Run. With an
// empty address the server has no sockets, and Run only waits.
func Listen(cfg *config.Config, d Deps) (*Server, error) {
	if d.Answer == nil {
		return nil, errors.New("dnsserver: Deps.Answer is required")
	}
	d = d.withDefaults()
	s := &Server{deps: d, log: d.Log, metrics: newMetrics(d.Reg), cfg: cfg, moved: make(chan struct{}, 1), panicLog: rate.Sometimes{Interval: time.Second}}
	err := Check(cfg)
	if err != nil {
		return nil, err
	}
	s.compile()
	if s.current, err = s.bind(cfg.DNS.Listen); err != nil {
		return nil, err
	}
	return s, nil
}

// Check reports all that Listen would refuse in dns.domains, dns.names and dns.records. It touches no network.
func Check(cfg *config.Config) error {
	_, err := compile(cfg, configured(cfg))
	return err
}

func (d Deps) withDefaults() Deps {
	if d.Listen == nil {
		d.Listen = listenTCP
	}
	if d.ListenPacket == nil {
		d.ListenPacket = net.ListenPacket
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	return d
}

func listenTCP(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // resolvers do not speak it
	return lc.Listen(context.Background(), network, address)
}

func (s *Server) zones(cfg *config.Config) []routing.Zone {
	if s.deps.Zones != nil {
		return s.deps.Zones()
	}
	return configured(cfg)
}

// Addrs are the addresses that are answered on, UDP and TCP alike.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.addrs()
}

// Run answers until ctx ends and every query under way has been answered.
func (s *Server) Run(ctx context.Context) error {
	defer s.closePending()
	serving := s.serve(s.bound())
	for {
		select {
		case <-ctx.Done():
			serving.stop()
			s.bound().close() // when a reload came at the last moment
			return nil
		case <-s.moved:
			next := s.serve(s.bound())
			serving.stop()
			serving = next
		}
	}
}

func (s *Server) bound() *sockets {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Reload checks the zones of cfg, and binds its address if that has changed. Sockets whose address is the
// same are kept; the others answer what they were asked and close once apply was called.
func (s *Server) Reload(cfg *config.Config) (apply func(), err error) {
	if err := Check(cfg); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.current
	if cfg.DNS.Listen != s.current.address {
		if next, err = s.prepare(cfg.DNS.Listen); err != nil {
			return nil, err
		}
	}
	return func() { s.apply(cfg, next) }, nil
}

// prepare binds an address for a Reload. What an earlier Reload bound and nobody applied is used or given up.
// s.mu is held.
func (s *Server) prepare(address string) (*sockets, error) {
	if s.pending != nil && s.pending.address == address {
		return s.pending, nil
	}
	next, err := s.bind(address)
	if err != nil {
		return nil, err
	}
	if s.pending != nil {
		s.pending.close()
	}
	s.pending = next
	return next, nil
}

func (s *Server) apply(cfg *config.Config, next *sockets) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = cfg
	s.compile()
	if next == s.current {
		return
	}
	s.current, s.pending = next, nil
	select {
	case s.moved <- struct{}{}:
	default: // Run has not yet seen the last move, and will find this one
	}
}

// Rebuild makes the zones again, for when Deps.Zones has something new to say about name servers.
func (s *Server) Rebuild() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compile()
}

// compile swaps in the zones of s.cfg, which Check has passed. s.mu is held.
func (s *Server) compile() {
	data, err := compile(s.cfg, s.zones(s.cfg))
	if err != nil {
		panic("dnsserver: checked configuration does not compile: " + err.Error())
	}
	s.data.Store(data)
}

func (s *Server) closePending() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil {
		s.pending.close()
		s.pending = nil
	}
}
