package healthcheck_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearzone/nearzone/healthcheck"
)

var errRefused = errors.New("connection refused")

// server is what a probe meets; it may be changed while it is probed.
type server struct{ mode atomic.Int32 }

const (
	healthy = iota
	refusing
	hanging
)

func (s *server) probe(ctx context.Context) error {
	switch s.mode.Load() {
	case refusing:
		return errRefused
	case hanging:
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// journal keeps the changes that a Checker told, with the time since its start.
type journal struct {
	start time.Time
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(id string, up bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf("%v %s %v", time.Since(j.start), id, up))
}

func (j *journal) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// run starts a Checker inside a synctest bubble; stop ends it.
func run(t *testing.T, targets ...healthcheck.Target) (c *healthcheck.Checker, j *journal, stop func()) {
	t.Helper()
	j = &journal{start: time.Now()}
	c = healthcheck.NewChecker(nil, j.note)
	c.Set(targets)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, j, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func defaults(id string, probe func(context.Context) error) healthcheck.Target {
	return healthcheck.Target{ID: id, Every: time.Second, Timeout: time.Second, Rise: 2, Fall: 3, Probe: probe}
}

func TestDeadTargetIsDownInTime(t *testing.T) {
	for _, tc := range []struct {
		name string
		mode int32
		want time.Duration // at most, from the moment it dies
	}{
		{"refused", refusing, 3 * time.Second},
		{"hang", hanging, 4 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{}
				c, j, stop := run(t, defaults("a", s.probe))
				defer stop()
				time.Sleep(10*time.Second + time.Millisecond) // it dies just after a probe: the worst moment
				s.mode.Store(tc.mode)
				time.Sleep(tc.want)
				synctest.Wait()
				if c.Up("a") {
					t.Errorf("still up %v after its death; changes %v", tc.want, j.read())
				}
				if got := j.read(); len(got) != 1 {
					t.Errorf("changes = %v, want exactly one", got)
				}
			})
		})
	}
}

func TestRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		c, j, stop := run(t, defaults("a", s.probe))
		defer stop()
		steps := []struct {
			mode int32
			last time.Duration
			up   bool
		}{
			{healthy, 2500 * time.Millisecond, true}, // probes at 0, 1, 2
			{refusing, 2 * time.Second, true},        // 3, 4: two failures are not three
			{healthy, time.Second, true},             // 5
			{refusing, 3 * time.Second, false},       // 6, 7, 8
			{healthy, time.Second, false},            // 9: one pass is not two
			{refusing, time.Second, false},           // 10
			{healthy, 2 * time.Second, true},         // 11, 12
		}
		for i, step := range steps {
			s.mode.Store(step.mode)
			time.Sleep(step.last)
			synctest.Wait()
			if got := c.Up("a"); got != step.up {
				t.Fatalf("step %d: up = %v, want %v; changes %v", i, got, step.up, j.read())
			}
		}
		if want := []string{"8s a false", "12s a true"}; !slices.Equal(j.read(), want) {
			t.Errorf("changes = %v, want %v", j.read(), want)
		}
	})
}

func TestFlappingTargetDoesNotFlapTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		_, j, stop := run(t, defaults("a", s.probe))
		defer stop()
		time.Sleep(500 * time.Millisecond) // between two probes
		for range 60 {                     // one failure, one pass: never three in a row
			s.mode.Store(refusing)
			time.Sleep(time.Second)
			s.mode.Store(healthy)
			time.Sleep(time.Second)
		}
		if got := j.read(); len(got) != 0 {
			t.Errorf("changes = %v, want none", got)
		}
	})
}

func TestUnknownAndUnjudgedAreUp(t *testing.T) {
	c := healthcheck.NewChecker(nil, nil)
	c.Set([]healthcheck.Target{{ID: "a"}})
	for _, id := range []string{"a", "stranger"} {
		if !c.Up(id) {
			t.Errorf("Up(%q) = false, want true", id)
		}
	}
	if s := c.Status(); len(s) != 1 || s[0].Judged || !s[0].Up {
		t.Errorf("Status = %+v, want one target, up and not judged", s)
	}
	c.Report("stranger", false) // ignored
}

func TestSetKeepsTheStateOfTargetsThatStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &server{}, &server{}
		a.mode.Store(refusing)
		c, j, stop := run(t, defaults("a", a.probe), defaults("b", b.probe))
		defer stop()
		time.Sleep(5 * time.Second)
		c.Set([]healthcheck.Target{defaults("a", a.probe), defaults("c", a.probe)})
		synctest.Wait()
		if c.Up("a") || !c.Up("b") || !c.Up("c") {
			t.Errorf("after Set: a %v, b %v, c %v, want false true true", c.Up("a"), c.Up("b"), c.Up("c"))
		}
		time.Sleep(5 * time.Second)
		if c.Up("c") {
			t.Error("the new target was not probed")
		}
		c.Set([]healthcheck.Target{defaults("a", b.probe)}) // the probe of a kept target may change
		time.Sleep(3 * time.Second)
		if !c.Up("a") {
			t.Errorf("a did not follow its new probe; changes %v", j.read())
		}
	})
}

func TestRemovedTargetIsNotProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int32
		c, _, stop := run(t, defaults("a", func(context.Context) error { probes.Add(1); return nil }))
		defer stop()
		time.Sleep(1500 * time.Millisecond)
		c.Set(nil)
		synctest.Wait()
		before := probes.Load()
		time.Sleep(10 * time.Second)
		if got := probes.Load(); got != before {
			t.Errorf("%d probes after the target was removed", got-before)
		}
	})
}

func TestReportEjectsHoldsAndReturnsHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		c, j, stop := run(t, defaults("a", s.probe)) // its probes pass all the time
		defer stop()
		time.Sleep(100 * time.Millisecond)
		c.Report("a", false)
		c.Report("a", false)
		c.Report("a", true)
		c.Report("a", false)
		c.Report("a", false)
		if !c.Up("a") {
			t.Fatal("down without three failures in a row")
		}
		time.Sleep(1000 * time.Millisecond) // a passed probe does not hide failing traffic
		synctest.Wait()
		c.Report("a", false)
		if c.Up("a") {
			t.Fatal("up after three failures in a row")
		}
		time.Sleep(4800 * time.Millisecond)
		synctest.Wait()
		if c.Up("a") {
			t.Fatal("back before its time out")
		}
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if !c.Up("a") {
			t.Fatalf("not back after its time out; changes %v", j.read())
		}
		c.Report("a", false) // half-open: one failure is enough
		if c.Up("a") {
			t.Fatal("half-open target survived a failure")
		}
		time.Sleep(9500 * time.Millisecond) // the second time out is twice as long
		synctest.Wait()
		if c.Up("a") {
			t.Fatal("back before its second time out")
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		c.Report("a", true) // closed again
		c.Report("a", false)
		if !c.Up("a") {
			t.Fatalf("a failure after a success ejected it; changes %v", j.read())
		}
	})
}

func TestReportOfFailuresWithoutProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, stop := run(t, defaults("a", nil))
		defer stop()
		synctest.Wait()
		for range 3 {
			c.Report("a", false)
		}
		if c.Up("a") {
			t.Fatal("up after three failures")
		}
		time.Sleep(7 * time.Second)
		if !c.Up("a") {
			t.Fatal("a target without a probe never came back")
		}
	})
}

func TestStatusHasErrorAndLeastRTT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c, _, stop := run(t, defaults("b", func(ctx context.Context) error {
			if n++; n == 4 {
				return errRefused
			}
			healthcheck.Measured(ctx, time.Duration(10-n)*time.Millisecond)
			return nil
		}), defaults("a", nil))
		defer stop()
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		s := c.Status()
		if len(s) != 2 || s[0].ID != "a" || s[1].ID != "b" {
			t.Fatalf("Status = %+v, want a and b", s)
		}
		if s[1].RTT != 7*time.Millisecond || s[1].LastError != errRefused.Error() || !s[1].Up {
			t.Errorf("status of b = %+v, want RTT 7ms, its last error, up", s[1])
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	c := healthcheck.NewChecker(nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	targets := []healthcheck.Target{{ID: "a", Every: time.Millisecond}, {ID: "b", Every: time.Millisecond}}
	var users sync.WaitGroup
	for i := range 4 {
		users.Go(func() {
			for n := range 500 {
				c.Set(targets[:1+(n+i)%2])
				c.Report("a", n%3 == 0)
				_, _ = c.Up("b"), c.Status()
			}
		})
	}
	users.Wait()
	cancel()
	wg.Wait()
}
