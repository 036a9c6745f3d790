package healthcheck

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// rttKept is how many successful probes the least RTT is taken of: long enough to see through queues, short
// enough to follow a changed path within a minute at the default pace.
const rttKept = 32

var errTraffic = errors.New("requests to it failed in a row")

// target is the locked form of a judge.
type target struct {
	id      string
	spec    atomic.Pointer[Target]
	up      atomic.Bool // copy of the judge's verdict
	tainted atomic.Bool // the last report was a failure

	mu      sync.Mutex // guards what is below
	judge   judge
	judged  bool
	lastErr error
	rtts    [rttKept]time.Duration // ring; 0 is unused
	probes  int                    // successful ones, index into rtts
}

func (t *target) set(spec Target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spec.Store(&spec)
	t.judge.rise, t.judge.fall = spec.Rise, spec.Fall
}

// probed takes the outcome of a probe and reports whether the verdict changed.
func (t *target) probed(err error, rtt time.Duration, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.judged, t.lastErr = true, err
	if err == nil {
		t.rtts[t.probes%rttKept] = rtt
		t.probes++
	}
	return t.settle(t.judge.probe(err == nil, now))
}

// rested is a round of a target that has no probe: nothing speaks against it.
func (t *target) rested(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settle(t.judge.probe(true, now))
}

// reported takes the outcome of real traffic and reports whether the verdict changed.
func (t *target) reported(ok bool, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.judged = true
	if !ok {
		t.lastErr = errTraffic
	}
	return t.settle(t.judge.report(ok, now))
}

func (t *target) settle(changed bool) bool {
	t.up.Store(!t.judge.down)
	t.tainted.Store(t.judge.reported > 0)
	return changed
}

func (t *target) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Status{ID: t.id, Up: !t.judge.down, Judged: t.judged, Since: t.judge.since}
	if t.lastErr != nil {
		s.LastError = t.lastErr.Error()
	}
	if kept := min(t.probes, rttKept); kept > 0 {
		s.RTT = slices.Min(t.rtts[:kept])
	}
	return s
}

type measuredKey struct{}

type measured struct{ rtt time.Duration }

// Measured is called by a probe that knows the round trip better than by its own length, such as the time of
// its connect alone. Outside a probe it does nothing.
func Measured(ctx context.Context, rtt time.Duration) {
	if m, ok := ctx.Value(measuredKey{}).(*measured); ok {
		m.rtt = rtt
	}
}
