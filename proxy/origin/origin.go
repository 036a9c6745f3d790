// Package origin is the way to the servers that hold the truth: pools with health, balancing, retries and
// timeouts, as a RoundTripper for HTTP (1.1, 2, h2c) and a DialContext for streams.
//
// It forwards what it is given. Header hygiene, caching and the client's side of things are its callers'.
//
//	set, err := origin.New(cfg, origin.Deps{Zone: "us-west-2-lax-1a", Log: log, Reg: reg})
//	go set.Run(ctx)
//	resp, err := set.Pool("app").RoundTrip(req)
package origin

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/healthcheck"
)

// Deps is what a Set is given by its node.
type Deps struct {
	Zone    string                // of this node; servers of this zone come first
	Log     *slog.Logger          // default: none
	Reg     prometheus.Registerer // default: one of its own
	Resolve Resolve               // default: NewResolver(ResolverOptions{})
}

// Set is the pools of all origins of a configuration. Its methods may be called from anywhere.
type Set struct {
	deps    Deps
	checker *healthcheck.Checker
	metrics *metrics
	pools   atomic.Pointer[map[string]*Pool] // by name; immutable
	changed chan struct{}                    // capacity 1: wakes Run

	mu sync.Mutex // held while targets are given to the checker
}

// New makes the pools; it resolves and connects to nothing. Files of a tls block that are missing or broken are
// an error, one for each.
func New(cfg *config.Config, d Deps) (*Set, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Reg == nil {
		d.Reg = prometheus.NewRegistry()
	}
	if d.Resolve == nil {
		d.Resolve = NewResolver(ResolverOptions{})
	}
	s := &Set{deps: d, changed: make(chan struct{}, 1)}
	s.checker = healthcheck.NewChecker(d.Log, s.turned)
	s.pools.Store(&map[string]*Pool{})
	m, err := newMetrics(d.Reg, s)
	if err != nil {
		return nil, err
	}
	s.metrics = m
	apply, err := s.Reload(cfg)
	if err != nil {
		return nil, err
	}
	apply()
	return s, nil
}

// Reload makes the pools of a new configuration and returns what puts them in place. An origin whose settings and
// certificate files are the same stays as it is; of a changed one, each server that it still has, with the same
// tls and timeouts, keeps its connections. Servers that are gone finish what they have in flight. A *Pool that
// was fetched before goes on working.
func (s *Set) Reload(cfg *config.Config) (apply func(), err error) {
	old, next := *s.pools.Load(), make(map[string]*Pool, len(cfg.Origins))
	var errs []error
	for _, o := range cfg.Origins {
		p, err := s.newPool(o, old[o.Name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		next[o.Name] = p
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return func() { s.swap(next) }, nil
}

func (s *Set) swap(next map[string]*Pool) {
	old := *s.pools.Swap(&next)
	s.retarget()
	for name, p := range old {
		if next[name] != p {
			p.retire(next[name])
		}
		if next[name] == nil {
			s.metrics.forget(name)
		}
	}
	s.wake()
}

func (s *Set) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// retarget tells the checker which servers there are.
func (s *Set) retarget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var targets []healthcheck.Target
	for _, p := range *s.pools.Load() {
		targets = append(targets, p.members.Load().targets...)
	}
	s.checker.Set(targets)
}

// Run checks servers and resolves names until ctx ends; then it closes idle connections, and those in flight
// as their requests end. It is run once.
func (s *Set) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.checker.Run(ctx) }) // never fails
	running := make(map[*Pool]context.CancelFunc)
	for ctx.Err() == nil {
		s.reconcile(ctx, running, &wg)
		select {
		case <-ctx.Done():
		case <-s.changed:
		}
	}
	for _, cancel := range running {
		cancel()
	}
	wg.Wait()
	for _, p := range *s.pools.Load() {
		p.retire(nil)
	}
	return nil
}

// reconcile starts to resolve the names of new pools and stops for those that are gone.
func (s *Set) reconcile(ctx context.Context, running map[*Pool]context.CancelFunc, wg *sync.WaitGroup) {
	pools := *s.pools.Load()
	for p, cancel := range running {
		if pools[p.name] != p {
			cancel()
			delete(running, p)
		}
	}
	for _, p := range pools {
		if running[p] != nil {
			continue
		}
		watch, cancel := context.WithCancel(ctx)
		running[p] = cancel
		for host := range p.names {
			wg.Go(func() { p.follow(watch, host) })
		}
	}
}

// turned is told by the checker that a server has gone down or come up.
func (s *Set) turned(id string, up bool) {
	if up {
		return
	}
	for _, p := range *s.pools.Load() {
		if slices.ContainsFunc(p.members.Load().all, func(m *server) bool { return m.id == id }) {
			p.metrics.ejections.Inc()
			return
		}
	}
}

// Pool finds an origin by name; nil if there is none.
func (s *Set) Pool(name string) *Pool { return (*s.pools.Load())[name] }

// Reachable says of each origin whether any of its servers is up.
func (s *Set) Reachable() map[string]bool {
	pools := *s.pools.Load()
	m := make(map[string]bool, len(pools))
	for name, p := range pools {
		m[name] = p.Up()
	}
	return m
}

// Onward is the least round trip to the servers that requests go to now, by origin, from the connects of active
// checks. An origin without checks, or without a good one yet, is left out.
func (s *Set) Onward() map[string]time.Duration {
	checks := s.checks()
	m := make(map[string]time.Duration)
	for name, p := range *s.pools.Load() {
		for _, srv := range p.healthy(nil) {
			if st := checks[srv.id]; st.RTT > 0 && (m[name] == 0 || st.RTT < m[name]) {
				m[name] = st.RTT
			}
		}
	}
	return m
}

// checks is the checker's status by server.
func (s *Set) checks() map[string]healthcheck.Status {
	m := make(map[string]healthcheck.Status)
	for _, st := range s.checker.Status() {
		m[st.ID] = st
	}
	return m
}
