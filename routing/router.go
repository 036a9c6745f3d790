package routing

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
)

// Router owns the current table and answers from it. Answer and Explain are safe for any number of goroutines and
// take no lock; Rebuild, Reload and Run may be used along with them.
type Router struct {
	src  Sources
	live Live
	log  *slog.Logger
	m    *metrics
	rand func() float64
	now  atomic.Pointer[current]

	mu    sync.Mutex // guards what follows; held while a table is built
	cfg   *config.Config
	names map[string]*nameState
	zones map[string]*zoneCounters
}

// current is what an answer needs, swapped as one.
type current struct {
	table *Table
	names []*nameState    // by plan.index
	zones []*zoneCounters // by zone index
}

// nameState outlives tables, so that failing open is told once and not at every build.
type nameState struct {
	failing  atomic.Bool
	failOpen prometheus.Counter
	gauge    prometheus.Gauge
}

const defaultBuild = 5 * time.Second

// NewRouter makes a Router and builds its first table from what the sources know by now.
func NewRouter(cfg *config.Config, s Sources, o Options) *Router {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	r := &Router{
		src: s, live: Live{Up: s.Up, Drained: s.Drained}, log: o.Log, m: newMetrics(o.Reg), rand: o.Rand,
		cfg: cfg, names: map[string]*nameState{}, zones: map[string]*zoneCounters{},
	}
	r.Rebuild()
	return r
}

// Run rebuilds the table every routing.build until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	timer := time.NewTimer(r.interval())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			r.Rebuild()
			timer.Reset(r.interval())
		}
	}
}

func (r *Router) interval() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if every := r.cfg.Routing.Build; every > 0 {
		return every
	}
	return defaultBuild
}

// Rebuild builds a table now and swaps it in.
func (r *Router) Rebuild() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.build()
}

// Reload prepares for a new configuration. apply takes over its names and rebuilds; the sources must tell of its
// zones by then. Estimates and the order of zones that names and prefixes had are kept.
func (r *Router) Reload(cfg *config.Config) (apply func(), err error) {
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cfg = cfg
		r.build()
	}, nil
}

// build makes the next table. The caller holds mu.
func (r *Router) build() {
	began := time.Now()
	in := Input{Config: r.cfg, Home: cmp.Or(r.cfg.Home, r.src.Home), Onward: r.src.Onward, Locate: r.src.Locate, Zones: r.src.Zones()}
	if r.src.Estimates != nil {
		in.Estimates = r.src.Estimates()
	}
	var prev *Table
	if c := r.now.Load(); c != nil {
		prev = c.table
	}
	t := Build(in, prev, began)
	r.now.Store(r.bind(t))
	r.m.builds.Observe(time.Since(began).Seconds())
	r.m.built.Set(float64(began.UnixMilli()) / 1e3)
	r.m.prefixes.Set(float64(t.Prefixes()))
	r.m.moves.Add(float64(t.moves))
}

// bind joins a table with the state and the counters that outlive it.
func (r *Router) bind(t *Table) *current {
	c := &current{table: t}
	for name := range r.names {
		if t.exact[name] == nil && t.below[strings.TrimPrefix(name, "*.")] == nil {
			r.m.forget(name)
			delete(r.names, name)
		}
	}
	for _, p := range t.plans {
		name := p.Name.Name
		if r.names[name] == nil {
			r.names[name] = &nameState{failOpen: r.m.failOpen.WithLabelValues(name), gauge: r.m.failing.WithLabelValues(name)}
		}
		c.names = append(c.names, r.names[name])
	}
	for _, z := range t.zones {
		if r.zones[z.Name] == nil {
			r.zones[z.Name] = r.m.zone(z.Name)
		}
		c.zones = append(c.zones, r.zones[z.Name])
	}
	return c
}

// Answer is the zone for a client asking for name, which is in lower case without a final dot. It is false when
// name is not steered. It takes no lock, and in the ordinary case allocates nothing.
func (r *Router) Answer(name string, client netip.Addr) (Answer, bool) {
	c := r.now.Load()
	p := c.table.plan(name)
	if p == nil {
		return Answer{}, false
	}
	dice := 1.0
	if p.rule.explore > 0 {
		dice = r.rand()
	}
	a := c.table.answer(p, client, r.live, dice)
	if z, ok := c.table.index[a.Zone]; ok {
		c.zones[z][a.Reason].Inc()
	}
	r.watch(c.names[p.index], &a)
	return a, true
}

// watch tells, once each way, when a name begins and ends to fail open.
func (r *Router) watch(s *nameState, a *Answer) {
	if a.FailOpen {
		s.failOpen.Inc()
	}
	if s.failing.Load() == a.FailOpen || !s.failing.CompareAndSwap(!a.FailOpen, a.FailOpen) {
		return
	}
	if a.FailOpen {
		s.gauge.Set(1)
		r.log.Error("name fails open: none of its zones is up and serving", "name", a.Name, "zone", a.Zone, "nodes", len(a.Nodes))
		return
	}
	s.gauge.Set(0)
	r.log.Info("name no longer fails open", "name", a.Name, "zone", a.Zone)
}

// Table is the current table.
func (r *Router) Table() *Table { return r.now.Load().table }
