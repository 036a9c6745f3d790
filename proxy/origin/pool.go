package origin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/healthcheck"
)

// Pool is the servers of one origin.
type Pool struct {
	set      *Set
	name     string
	cfg      config.Origin
	host     string // Host header to send; empty: the client's
	material material
	log      *slog.Logger
	metrics  *originMetrics
	budget   budget
	turn     atomic.Uint64 // of round robin
	members  atomic.Pointer[members]

	mu      sync.Mutex       // guards what is below, and changes of members
	names   map[string]*name // hostnames among the servers; the map itself never changes
	waiting int              // names that have not been resolved once
	ready   chan struct{}    // closed when none is waiting
	over    bool             // retired: later answers change nothing
}

// members is an immutable list of servers.
type members struct {
	all     []*server
	tiers   [2][]*server // own zone first; a server without zone is in the first
	targets []healthcheck.Target
}

// newPool makes the pool of an origin, or returns old if nothing about it has changed.
func (s *Set) newPool(o config.Origin, old *Pool) (*Pool, error) {
	m, err := readTLS(o.Name, o.TLS)
	if err != nil {
		return nil, err
	}
	if old != nil && reflect.DeepEqual(old.cfg, o) && old.material.sum == m.sum {
		return old, nil
	}
	p := &Pool{
		set: s, name: o.Name, cfg: o, material: m, log: s.deps.Log, metrics: s.metrics.of(o.Name),
		names: make(map[string]*name), ready: make(chan struct{}),
	}
	if o.Host != "preserve" {
		p.host = o.Host
	}
	p.budget.share, p.budget.began = float64(o.Retries.Budget), time.Now()
	for _, srv := range o.Servers {
		if !literal(srv.Host).IsValid() {
			p.names[srv.Host] = &name{}
		}
	}
	servers := p.inherit(old)
	p.waiting = len(p.names)
	if p.waiting == 0 {
		close(p.ready)
	}
	p.rebuild(servers)
	return p, nil
}

// inherit takes over the addresses that an earlier pool of the same origin knows, and returns its servers if
// connections to them are still made in the same way.
func (p *Pool) inherit(old *Pool) map[key]*server {
	if old == nil {
		return nil
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	for host, n := range p.names {
		if was := old.names[host]; was != nil {
			n.addrs = was.addrs
		}
	}
	if old.cfg.TLS != p.cfg.TLS || old.cfg.Timeouts != p.cfg.Timeouts || old.material.sum != p.material.sum {
		return nil
	}
	return byKey(old.members.Load().all)
}

func byKey(servers []*server) map[key]*server {
	m := make(map[key]*server, len(servers))
	for _, s := range servers {
		m[s.key] = s
	}
	return m
}

// rebuild makes the list of members anew from the configuration and the known addresses, using the servers
// there are. It is called with mu held, or before anybody knows the pool.
func (p *Pool) rebuild(have map[key]*server) {
	next := &members{}
	for _, k := range p.keys() {
		s := have[k]
		if s == nil {
			s = p.newServer(k)
		}
		next.add(s, p.target(s), k.Zone == "" || k.Zone == p.set.deps.Zone)
	}
	p.members.Store(next)
}

// without lists the servers of before that are not members any more.
func (m *members) without(before []*server) []*server {
	return slices.DeleteFunc(slices.Clone(before), func(s *server) bool { return slices.Contains(m.all, s) })
}

func (m *members) add(s *server, t healthcheck.Target, own bool) {
	m.all = append(m.all, s)
	m.targets = append(m.targets, t)
	tier := &m.tiers[1]
	if own {
		tier = &m.tiers[0]
	}
	*tier = append(*tier, s)
}

// keys are the servers that there should be, each once.
func (p *Pool) keys() []key {
	var keys []key
	add := func(k key) {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	for _, srv := range p.cfg.Servers {
		if addr := literal(srv.Host); addr.IsValid() {
			add(key{srv, addr})
			continue
		}
		for _, addr := range p.names[srv.Host].addrs {
			add(key{srv, addr})
		}
	}
	return keys
}

func (p *Pool) newServer(k key) *server {
	tlsName := p.cfg.TLS.ServerName
	if tlsName == "" {
		tlsName = k.Host
	}
	s := newServer(p.name, k, p.cfg.Timeouts, p.material, tlsName, p.metrics)
	checker, id := p.set.checker, s.id
	s.up = func() bool { return checker.Up(id) }
	s.report = func(ok bool) { checker.Report(id, ok) }
	return s
}

// target is how a server is checked: as configured, and by TCP connect when it says nothing and speaks HTTP.
func (p *Pool) target(s *server) healthcheck.Target {
	c := p.cfg.Check
	t := healthcheck.Target{ID: s.id, Every: c.Every, Timeout: c.Timeout, Rise: c.Rise, Fall: c.Fall}
	switch {
	case c.Off:
	case c.HTTP != "":
		t.Probe = healthcheck.HTTP(s.scheme()+"://"+s.address+c.HTTP, healthcheck.ProbeOptions{
			Host: p.checkHost(s), TLS: s.checkTLS, H2C: s.Scheme == "h2c",
		})
	case c.TCP || s.Scheme != "":
		t.Probe = healthcheck.TCP(s.address, healthcheck.ProbeOptions{})
	}
	return t
}

func (p *Pool) checkHost(s *server) string {
	if p.host != "" {
		return p.host
	}
	return net.JoinHostPort(s.Host, fmt.Sprint(s.Port))
}

// retire ends the pool: servers that next has not taken over finish what they have in flight.
func (p *Pool) retire(next *Pool) {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	kept := &members{}
	if next != nil {
		kept = next.members.Load()
	}
	for _, s := range kept.without(p.members.Load().all) {
		s.retire()
	}
}

// healthy appends the servers that are up in the first tier that has any.
func (p *Pool) healthy(to []*server) []*server {
	for _, tier := range p.members.Load().tiers {
		for _, s := range tier {
			if s.up() {
				to = append(to, s)
			}
		}
		if len(to) > 0 {
			break
		}
	}
	return to
}

// candidates appends the servers that a request may go to: those that are up, or when none is, all that may be
// tried.
func (p *Pool) candidates(to []*server, now time.Time) []*server {
	if to = p.healthy(to); len(to) > 0 {
		return to
	}
	for _, s := range p.members.Load().all {
		if s.mayConnect(now) {
			to = append(to, s)
		}
	}
	return to
}

// await waits for the first answer about the pool's names, as long as a connect may take. It reports whether
// there was something to wait for.
func (p *Pool) await(ctx context.Context) bool {
	select {
	case <-p.ready:
		return false
	default:
	}
	ctx, cancel := withTimeout(ctx, p.cfg.Timeouts.Connect)
	defer cancel()
	select {
	case <-p.ready:
	case <-ctx.Done():
	}
	return true
}

// noServer says why there is none.
func (p *Pool) noServer() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, n := range p.names {
		errs = append(errs, n.err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("origin %q: %w: %w", p.name, ErrNoServer, err)
	}
	return fmt.Errorf("origin %q: %w", p.name, ErrNoServer)
}

// judge holds a failed attempt against the server. Connects are judged where they are made.
func (p *Pool) judge(x *exchange, err error) {
	switch {
	case errors.Is(err, ErrConnect):
	case errors.Is(err, ErrTimeout):
		x.server.renew(x.via, x.watch.began)
		p.blame(x.server)
	case errors.Is(err, ErrBroken):
		p.blame(x.server)
	}
}

// judgeStatus holds 502, 503 and 504 against the server, and other answers in its favour.
func (p *Pool) judgeStatus(s *server, status int) {
	if status >= 502 && status <= 504 {
		p.blame(s)
		return
	}
	s.report(true)
}

// blame reports a failure that a client may have provoked by what it asked for: it takes out a server only while
// at least half of the servers stay, so that no request can close an origin.
func (p *Pool) blame(s *server) {
	all, up := p.members.Load().all, 0
	for _, m := range all {
		if m.up() {
			up++
		}
	}
	if (up-1)*2 >= len(all) {
		s.report(false)
	}
}

// Report tells the outcome of traffic that went round the pool, such as a refused datagram. Unknown addresses
// are ignored.
func (p *Pool) Report(addr netip.AddrPort, ok bool) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	for _, s := range p.members.Load().all {
		if s.addrPort() == addr {
			s.report(ok)
		}
	}
}

// Up reports whether any server is up. A pool whose names have not been resolved yet is not judged, and up.
func (p *Pool) Up() bool {
	select {
	case <-p.ready:
	default:
		return true
	}
	return slices.ContainsFunc(p.members.Load().all, (*server).isUp)
}

// ServerStatus is one server as an operator sees it.
type ServerStatus struct {
	Server    string         `json:"server"` // as configured, with the address of a hostname
	Zone      string         `json:"zone,omitempty"`
	Address   netip.AddrPort `json:"address"`
	Up        bool           `json:"up"`
	Since     time.Time      `json:"since,omitzero"` // of the last change
	InFlight  int64          `json:"in_flight"`
	RTT       time.Duration  `json:"rtt"` // of the connects of checks; 0: unknown
	LastError string         `json:"last_error,omitempty"`
}

// Status lists the servers in the order of the configuration.
func (p *Pool) Status() []ServerStatus {
	checks := p.set.checks()
	var list []ServerStatus
	for _, s := range p.members.Load().all {
		c := checks[s.id]
		list = append(list, ServerStatus{
			Server: s.name, Zone: s.Zone, Address: s.addrPort(), Up: s.up(), Since: c.Since,
			InFlight: s.inFlight.Load(), RTT: c.RTT, LastError: c.LastError,
		})
	}
	return list
}
