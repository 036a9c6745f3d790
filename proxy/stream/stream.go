// Package stream relays TCP and UDP to game servers.
//
// One listener serves each configured stream. A client's session goes to one server of the stream's origin and
// stays with it for life: a TCP connection is one session, and so is what one client address and port sends by UDP
// until it is silent for the idle time. Bytes and datagrams pass unchanged, with a PROXY protocol header in front
// where the server wants to know the client. Order is kept within a session.
//
// It is no game server, terminates no TLS, and sends nothing to an address that it has not heard from.
//
//	s, err := stream.Listen(cfg, stream.Deps{Origins: origins, Observe: observe, Log: log, Reg: reg})
//	if err != nil { … }
//	err = s.Run(ctx)
package stream

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

// Deps are what Streams need of the rest of the process.
type Deps struct {
	Origins *origin.Set
	// Observe takes the smallest round trip of a client's live TCP connection; nil drops it.
	Observe func(client netip.Addr, rtt time.Duration)
	// SampleEvery is how often it does while a connection lasts; at its end it does in any case. Default 10s.
	SampleEvery time.Duration
	// Listen and ListenPacket open sockets; nil is package net's, without multipath TCP. A packet socket must be a
	// *net.UDPConn.
	Listen       func(network, address string) (net.Listener, error)
	ListenPacket func(network, address string) (net.PacketConn, error)
	Log          *slog.Logger
	Reg          prometheus.Registerer
}

// Streams are the listeners of one node. All methods may be called from any goroutine.
type Streams struct {
	deps    Deps
	metrics *metrics
	locals  locals
	changed chan struct{} // Run has something to start or to time

	mu       sync.Mutex // guards all below
	doors    map[doorKey]*door
	retired  []*door           // their address is no longer configured, their stream is; they keep their sessions
	reserved map[doorKey]*door // bound by a Reload that was not applied, or not yet
	draining bool
	patience time.Duration // drain.streams
}

// Listen binds every stream's address. What it bound is closed when Run returns.
func Listen(cfg *config.Config, d Deps) (*Streams, error) {
	s := &Streams{
		deps: d.withDefaults(), changed: make(chan struct{}, 1),
		doors: map[doorKey]*door{}, reserved: map[doorKey]*door{},
	}
	s.metrics = newMetrics(s.deps.Reg)
	apply, err := s.Reload(cfg)
	if err != nil {
		s.closeReserved()
		return nil, err
	}
	apply()
	return s, nil
}

func (d Deps) withDefaults() Deps {
	if d.Observe == nil {
		d.Observe = func(netip.Addr, time.Duration) {}
	}
	if d.SampleEvery <= 0 {
		d.SampleEvery = 10 * time.Second
	}
	if d.Listen == nil {
		d.Listen = func(network, address string) (net.Listener, error) {
			var c net.ListenConfig
			c.SetMultipathTCP(false) // TCP_INFO is not there on an MPTCP socket
			return c.Listen(context.Background(), network, address)
		}
	}
	if d.ListenPacket == nil {
		d.ListenPacket = net.ListenPacket
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Reg == nil {
		d.Reg = prometheus.NewRegistry()
	}
	return d
}

// Run serves until ctx ends, then ends every session and returns nil when all is closed. It is called once.
func (s *Streams) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer s.close()
	defer cancel()
	var deadline <-chan time.Time
	for {
		s.start(ctx, &serving)
		if wait, draining := s.drainTime(); draining && deadline == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			deadline = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		case <-deadline:
			s.endAll(endDrained)
			deadline = make(chan time.Time) // once
		}
	}
}

// start serves what is bound and not served yet.
func (s *Streams) start(ctx context.Context, serving *sync.WaitGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.doors {
		if !d.serving {
			d.serving = true
			serving.Go(func() { d.serve(ctx) })
		}
	}
}

// Drain takes no new session from now on. Those under way last until they end by themselves or drain.streams is
// over. There is no way back.
func (s *Streams) Drain() {
	s.mu.Lock()
	s.draining = true
	for _, d := range s.doors {
		d.shut()
	}
	s.mu.Unlock()
	s.notify()
}

func (s *Streams) drainTime() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patience, s.draining
}

// Sessions is the number of sessions under way.
func (s *Streams) Sessions() int {
	n := 0
	for _, d := range s.all() {
		n += d.sessions()
	}
	return n
}

// Status is one listener as operators see it.
type Status struct {
	Name     string `json:"name"`
	Network  string `json:"network"`
	Listen   string `json:"listen"` // as bound
	Origin   string `json:"origin"`
	Sessions int    `json:"sessions"`
	Retired  bool   `json:"retired,omitempty"` // takes no new session: draining, or its address left the configuration
}

// Status lists the listeners by name.
func (s *Streams) Status() []Status {
	var out []Status
	for _, d := range s.all() {
		p := d.policy.Load()
		out = append(out, Status{
			Name: p.name, Network: d.key.network, Listen: d.addr().String(), Origin: p.origin,
			Sessions: d.sessions(), Retired: d.isShut(),
		})
	}
	slices.SortStableFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// all lists the doors, and those retired that still have sessions.
func (s *Streams) all() []*door {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = slices.DeleteFunc(s.retired, func(d *door) bool { return d.isShut() && d.sessions() == 0 })
	out := slices.Clone(s.retired)
	for _, d := range s.doors {
		out = append(out, d)
	}
	return out
}

func (s *Streams) endAll(why ending) {
	for _, d := range s.all() {
		d.endAll(why)
	}
}

func (s *Streams) close() {
	s.closeReserved()
	for _, d := range s.all() {
		d.close(endStopped)
	}
}

func (s *Streams) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
