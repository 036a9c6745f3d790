package latency_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/latency"
)

func target(i int, n float64, seen time.Time) latency.Target {
	a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 7})
	return latency.Target{Prefix: routing.PrefixOf(a), Client: a, N: n, Seen: seen}
}

func TestScheduleWantsTrafficWithoutSamples(t *testing.T) {
	now := newClock().Now()
	var s latency.Schedule
	got := s.Pick([]latency.Target{
		target(1, 3, now),                                   // known well enough
		target(2, 2.9, now.Add(-time.Hour)),                 // wanted
		target(3, 0, now.Add(-25*time.Hour)),                // its client left
		target(4, 0, now.Add(-time.Minute)),                 // wanted more
		{Prefix: routing.PrefixOf(addr("10.9.9.9")), N: 20}, // nobody there
	}, now)
	if len(got) != 2 || got[0].Client != addr("10.0.4.7") || got[1].Client != addr("10.0.2.7") {
		t.Errorf("picked %+v", got)
	}
}

// A prefix that answers is asked four times a day, one that does not less and less.
func TestScheduleLeavesPrefixesAlone(t *testing.T) {
	for _, c := range []struct {
		answers bool
		days    int
		want    int
	}{{true, 1, 4}, {true, 10, 40}, {false, 1, 5}, {false, 10, 14}} {
		now := newClock().Now()
		var s latency.Schedule
		asked := 0
		for end := now.Add(time.Duration(c.days) * 24 * time.Hour); now.Before(end); now = now.Add(10 * time.Second) {
			for _, p := range s.Pick([]latency.Target{target(1, 0, now)}, now) {
				asked++
				if c.answers {
					s.Done(p.Prefix, true, now)
				}
			}
		}
		if asked != c.want {
			t.Errorf("answers %v: asked %d times in %d days, want %d", c.answers, asked, c.days, c.want)
		}
	}
}

func TestScheduleIsBounded(t *testing.T) {
	now := newClock().Now()
	var s latency.Schedule
	var list []latency.Target
	for i := range 1000 {
		list = append(list, target(i, 0, now))
	}
	seen := map[netip.Prefix]bool{}
	for range 1000/latency.PerTick + 1 {
		picked := s.Pick(list, now)
		if len(picked) > latency.PerTick {
			t.Fatalf("picked %d at once", len(picked))
		}
		for _, p := range picked {
			if seen[p.Prefix] {
				t.Fatalf("%v is picked again at once", p.Prefix)
			}
			seen[p.Prefix] = true
		}
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 had their turn", len(seen))
	}
	s.Pick(nil, now.Add(100*time.Hour))
	if n := s.Len(); n != 0 {
		t.Errorf("%d are remembered for ever", n)
	}
}

// Another zone sees a client; this one probes the address, and the probe is no sign of a client to anybody.
func TestProberMeasuresWhatOthersSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newNode := func(zone string) *latency.Estimator { return latency.New(zone, latency.Options{}) }
		a, b := newNode(lax), newNode(phx)
		a.Observe(addr("192.0.2.7"), 30*ms, routing.TCP)
		a.Observe(addr("192.0.2.9"), 30*ms, routing.Beacon)
		a.Observe(addr("198.51.100.7"), 30*ms, routing.TCP)
		a.Observe(addr("203.0.113.7"), 30*ms, routing.Simulated) // no such client
		merge(t, b, a.Digest())
		var mu sync.Mutex
		var asked []string
		p := latency.NewProber(b, latency.ProberOptions{Off: true, Ping: func(ctx context.Context, a netip.Addr) (time.Duration, int, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, a.String())
			if a == addr("198.51.100.7") {
				return 0, 0, errors.New("silence")
			}
			return 12 * ms, 3, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(asked) != 0 {
			t.Errorf("asked %v while off", asked)
		}
		p.Enable(true)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if len(asked) != 2 {
			t.Errorf("asked %v, want the last client of two prefixes, once each", asked)
		}
		if m := measured(b, "192.0.2.1", phx); m.N < 2.8 || m.Mean != 12 {
			t.Errorf("measured %+v, want three samples of 12 ms", m)
		}
		if m := measured(b, "198.51.100.1", phx); m.N != 0 {
			t.Errorf("measured %+v of a silent address", m)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		c := newNode("us-west-2")
		merge(t, c, b.Digest())
		if list := c.Targets(); len(list) != 0 {
			t.Errorf("probes make targets of %+v", list)
		}
	})
}

func TestProberStopsWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := latency.New(phx, latency.Options{})
		e.Observe(addr("192.0.2.7"), 30*ms, routing.TCP)
		p := latency.NewProber(e, latency.ProberOptions{Ping: func(ctx context.Context, _ netip.Addr) (time.Duration, int, error) {
			<-ctx.Done()
			return 0, 0, ctx.Err()
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// With real sockets: either they work, or the Prober says why not and waits for the end.
func TestProberOpensSockets(t *testing.T) {
	var log bytes.Buffer
	p := latency.NewProber(latency.New(phx, latency.Options{}), latency.ProberOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestEchoOverLoopback(t *testing.T) {
	for _, c := range []struct {
		v6   bool
		addr string
	}{{false, "127.0.0.1"}, {true, "::1"}} {
		p, err := latency.NewPinger(c.v6)
		if err != nil {
			t.Logf("no echo requests to %s on this machine: %v", c.addr, err)
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		rtt, n, err := p.Ping(ctx, addr(c.addr))
		if c.v6 && err != nil {
			t.Logf("no IPv6 loopback on this machine: %v", err)
		} else if err != nil || n != 3 || rtt <= 0 || rtt > time.Second {
			t.Errorf("ping %s: %v, %d replies, %v", c.addr, rtt, n, err)
		}
		if n := p.Waiting(); n != 0 {
			t.Errorf("%d replies are waited for after the end", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}
