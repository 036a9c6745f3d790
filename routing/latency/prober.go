package latency

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/nearzone/nearzone/routing"
)

const (
	probeEvery   = 3 * time.Second
	probesAtOnce = 2 * perTick // a probe of a silent address takes 3.5 s
)

// Ping is the fastest of a few round trips to an address and how many were answered. An error means none was.
type Ping func(ctx context.Context, addr netip.Addr) (best time.Duration, answered int, err error)

// ProberOptions of a Prober. The zero value works.
type ProberOptions struct {
	Off  bool // until Enable; routing.probe: off
	Ping Ping // default: ICMP echo
	Log  *slog.Logger
	Reg  prometheus.Registerer
}

// Prober measures this zone's round trip to prefixes that have clients in the fleet but too few samples here.
//
// It sends three echo requests to an address seen there, four times a day at most, and stops when connections tell
// enough. Where the system allows neither kind of ICMP socket it warns once and probes nothing.
type Prober struct {
	e    *Estimator
	ping Ping
	log  *slog.Logger
	on   atomic.Bool

	probes *prometheus.CounterVec
}

// NewProber makes a Prober that feeds e.
func NewProber(e *Estimator, o ProberOptions) *Prober {
	p := &Prober{e: e, ping: o.Ping, log: o.Log, probes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "nearzone_latency_probes_total", Help: "Prefixes probed with echo requests, by whether the address answered.",
	}, []string{"result"})}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if o.Reg != nil {
		o.Reg.MustRegister(p.probes)
	}
	p.on.Store(!o.Off)
	return p
}

// Enable turns probing on or off, at a reload.
func (p *Prober) Enable(on bool) { p.on.Store(on) }

// Run probes until ctx ends and every probe under way has ended.
func (p *Prober) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	ping := p.ping
	if ping == nil {
		ping = p.open(ctx, g)
	}
	g.Go(func() error { return p.loop(ctx, ping) })
	return g.Wait()
}

// open is an ICMP Ping whose sockets are read in g, for the families that the system allows.
func (p *Prober) open(ctx context.Context, g *errgroup.Group) Ping {
	family := map[bool]*pinger{}
	for _, v6 := range []bool{false, true} {
		c, err := newPinger(v6)
		if err != nil {
			p.log.Warn("cannot probe; allow it by the sysctl net.ipv4.ping_group_range or CAP_NET_RAW, or set routing.probe: off", "ipv6", v6, "err", err)
			continue
		}
		family[v6] = c
		g.Go(func() error { return c.run(ctx) })
	}
	if len(family) == 0 {
		return nil
	}
	return func(ctx context.Context, addr netip.Addr) (time.Duration, int, error) {
		c := family[addr.Is6()]
		if c == nil {
			return 0, 0, errSilent
		}
		return c.ping(ctx, addr)
	}
}

type outcome struct {
	target   Target
	answered bool
}

// loop owns the schedule; probes run beside it and report back.
func (p *Prober) loop(ctx context.Context, ping Ping) error {
	if ping == nil {
		<-ctx.Done()
		return nil
	}
	var s schedule
	var running errgroup.Group
	running.SetLimit(probesAtOnce)
	defer running.Wait()
	done := make(chan outcome, probesAtOnce)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-done:
			s.done(o.target.Prefix, o.answered, p.e.now())
		case <-tick.C:
			if !p.on.Load() {
				continue
			}
			for _, t := range s.pick(p.e.Targets(), p.e.now()) {
				// When all are busy the target waits for its next turn, an hour later.
				running.TryGo(func() error {
					p.probe(ctx, ping, t, done)
					return nil
				})
			}
		}
	}
}

func (p *Prober) probe(ctx context.Context, ping Ping, t Target, done chan<- outcome) {
	best, n, err := ping(ctx, t.Client)
	if ctx.Err() != nil {
		return
	}
	o := outcome{target: t, answered: err == nil && n > 0}
	if !o.answered {
		// Silence is what many networks answer, and pick has noted it already.
		p.probes.WithLabelValues("silent").Inc()
		return
	}
	p.probes.WithLabelValues("answered").Inc()
	for range n {
		p.e.Observe(t.Client, best, routing.Probe)
	}
	select {
	case done <- o:
	case <-ctx.Done():
	}
}
