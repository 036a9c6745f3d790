// Package healthcheck decides who is alive: probes and reports of real traffic become a verdict for each target
// ([Checker]), and the views of all nodes become the fleet's verdict on each node ([Quorum]). Rise and fall,
// and with them all damping against flapping, live here and nowhere else.
//
// It knows no transport: what a probe is, and how views travel, is the caller's business.
//
//	c := healthcheck.NewChecker(log, func(id string, up bool) { publish() })
//	c.Set([]healthcheck.Target{{ID: "203.0.113.10", Every: time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
//		Probe: healthcheck.HTTP("http://203.0.113.10/.nearzone/health", healthcheck.ProbeOptions{})}})
//	go c.Run(ctx)
package healthcheck

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Target is one thing to watch. Zero times and counts mean those of config.Default: every 1s, timeout 1s,
// rise 2, fall 3.
type Target struct {
	ID             string
	Every, Timeout time.Duration
	Rise, Fall     int
	// Probe asks once; nil error is a pass. It must end when ctx does. A nil Probe asks nothing: such a target
	// goes down by Report alone and comes back after its time out.
	Probe func(ctx context.Context) error
}

// Status is what a Checker knows of one target.
type Status struct {
	ID        string        `json:"id"`
	Up        bool          `json:"up"`
	Judged    bool          `json:"judged"` // a probe or a report has been seen
	Since     time.Time     `json:"since"`  // of the last change; zero: never changed
	LastError string        `json:"last_error,omitempty"`
	RTT       time.Duration `json:"rtt"` // least of the last successful probes; 0: none yet
}

// Checker probes targets and keeps their rise and fall. All its methods may be called at any time, from
// anywhere; targets are probed only while Run runs.
type Checker struct {
	log      *slog.Logger
	onChange func(id string, up bool)
	targets  atomic.Pointer[map[string]*target] // immutable
	changed  chan struct{}                      // capacity 1: Set wakes Run

	mu sync.Mutex // held by Set
}

// NewChecker makes a Checker without targets. onChange, when not nil, is called after each change of a verdict,
// from the goroutine that saw it, without locks: it should be quick, and two calls for one target may overtake
// each other, so it asks Up for the truth.
func NewChecker(log *slog.Logger, onChange func(id string, up bool)) *Checker {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if onChange == nil {
		onChange = func(string, bool) {}
	}
	c := &Checker{log: log, onChange: onChange, changed: make(chan struct{}, 1)}
	c.targets.Store(&map[string]*target{})
	return c
}

// Set replaces the targets. Those whose ID stays keep their verdict, and follow the new times, counts and probe
// from their next round on. Of two targets with one ID the last counts.
func (c *Checker) Set(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, next := *c.targets.Load(), make(map[string]*target, len(targets))
	for _, spec := range targets {
		t := old[spec.ID]
		if t == nil {
			t = &target{id: spec.ID}
			t.up.Store(true)
		}
		t.set(withDefaults(spec))
		next[spec.ID] = t
	}
	c.targets.Store(&next)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func withDefaults(t Target) Target {
	t.Every = cmp.Or(max(t.Every, 0), time.Second)
	t.Timeout = cmp.Or(max(t.Timeout, 0), time.Second)
	t.Rise = cmp.Or(max(t.Rise, 0), 2)
	t.Fall = cmp.Or(max(t.Fall, 0), 3)
	return t
}

// Run probes until ctx ends and every probe has ended. It is run once.
func (c *Checker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := make(map[*target]context.CancelFunc)
	for {
		c.reconcile(ctx, running, &wg)
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		}
	}
}

// reconcile starts the watch of new targets and ends that of removed ones.
func (c *Checker) reconcile(ctx context.Context, running map[*target]context.CancelFunc, wg *sync.WaitGroup) {
	wanted := *c.targets.Load()
	for t, cancel := range running {
		if wanted[t.id] != t {
			cancel()
			delete(running, t)
		}
	}
	for _, t := range wanted {
		if running[t] != nil {
			continue
		}
		watch, cancel := context.WithCancel(ctx)
		running[t] = cancel
		wg.Go(func() { c.watch(watch, t) })
	}
}

// watch probes one target until ctx ends, at a steady pace: a probe that hangs does not put off the next one
// longer than its own timeout.
func (c *Checker) watch(ctx context.Context, t *target) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		every := c.probe(ctx, t)
		timer.Reset(max(0, every-time.Since(began)))
	}
}

// probe asks once and judges; it returns the time from this probe to the next.
func (c *Checker) probe(ctx context.Context, t *target) time.Duration {
	spec := *t.spec.Load()
	if spec.Probe == nil {
		c.tell(t, t.rested(time.Now()), nil)
		return spec.Every
	}
	probing, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	var m measured
	began := time.Now()
	err := spec.Probe(context.WithValue(probing, measuredKey{}, &m))
	if ctx.Err() != nil {
		return spec.Every // stopped, or no longer a target: not the target's fault
	}
	rtt := cmp.Or(m.rtt, time.Since(began))
	c.tell(t, t.probed(err, rtt, time.Now()), err)
	return spec.Every
}

func (c *Checker) tell(t *target, changed bool, err error) {
	if !changed {
		return
	}
	up := t.up.Load()
	if up {
		c.log.Info("target is up", "target", t.id)
	} else {
		c.log.Warn("target is down", "target", t.id, "err", err)
	}
	c.onChange(t.id, up)
}

// Up reports the verdict. A target that is unknown or not yet judged is up. It takes no lock.
func (c *Checker) Up(id string) bool {
	t := (*c.targets.Load())[id]
	return t == nil || t.up.Load()
}

// Report tells the outcome of real traffic to a target: failures in a row eject it as failed probes would, for
// at least a few seconds, and the first failure after its return ejects it again. A success costs no lock
// unless a failure came before it. Unknown targets are ignored.
func (c *Checker) Report(id string, ok bool) {
	t := (*c.targets.Load())[id]
	if t == nil || (ok && !t.tainted.Load()) {
		return
	}
	c.tell(t, t.reported(ok, time.Now()), errTraffic)
}

// Status lists all targets, sorted by ID.
func (c *Checker) Status() []Status {
	targets := *c.targets.Load()
	list := make([]Status, 0, len(targets))
	for _, id := range slices.Sorted(maps.Keys(targets)) {
		list = append(list, targets[id].status())
	}
	return list
}
