package latency_test

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/latency"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	lax = "us-west-2-lax-1a"
	phx = "us-west-2-phx-2a"
	ms  = time.Millisecond
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// node makes an Estimator whose prior is 20 ms for everyone.
func node(c *clock, zone, name string) *latency.Estimator {
	return latency.New(zone, latency.Options{Node: name, Now: c.Now, Prior: func(string, netip.Addr) float64 { return 20 }})
}

// measured finds what e knows about the prefix of a client and a zone.
func measured(e *latency.Estimator, client, zone string) routing.Measured {
	for _, p := range e.Estimates() {
		if p.Prefix != routing.PrefixOf(addr(client)) {
			continue
		}
		for _, m := range p.Zones {
			if m.Zone == zone {
				return m
			}
		}
	}
	return routing.Measured{}
}

func near(a, b float64) bool { return math.Abs(a-b) < 0.01 }

func TestMean(t *testing.T) {
	for _, c := range []struct {
		what    string
		samples []int // ms, to a prior of 20
		mean, n float64
	}{
		{"one", []int{8}, 8, 1},
		{"the mean of some", []int{8, 10, 12}, 10, 3},
		{"a spike counts as 30 ms more than expected", []int{10, 10, 10, 500}, 17.5, 4},
		{"the first is held against the prior", []int{500}, 50, 1},
		{"two spikes in a row are no path yet", []int{10, 500, 10, 500}, (10 + 40 + 10 + 50) / 4.0, 4},
		{"from the third in a row on they are believed ever more", []int{10, 250, 250, 250, 250, 250}, 103.333, 6},
		{"a far client is found out soon", []int{250, 250, 250, 250, 250, 250, 250, 250}, 182.5, 8},
	} {
		e := node(newClock(), lax, "a")
		for _, s := range c.samples {
			e.Observe(addr("192.0.2.7"), time.Duration(s)*ms, routing.TCP)
		}
		if m := measured(e, "192.0.2.99", lax); !near(m.Mean, c.mean) || !near(m.N, c.n) {
			t.Errorf("%s: %v samples with mean %v, want %v with %v", c.what, m.N, m.Mean, c.n, c.mean)
		}
	}
}

// A mean remembers twenty samples, so a changed route is believed after about as many.
func TestMemoryIsCapped(t *testing.T) {
	e := node(newClock(), lax, "a")
	observe := func(n int, rtt time.Duration) routing.Measured {
		for range n {
			e.Observe(addr("192.0.2.7"), rtt, routing.TCP)
		}
		return measured(e, "192.0.2.7", lax)
	}
	if m := observe(1000, 10*ms); m.N != 20 || m.Mean != 10 {
		t.Errorf("after a thousand samples: %+v", m)
	}
	if m := observe(20, 40*ms); m.Mean < 27 || m.Mean > 33 {
		t.Errorf("twenty samples of 40 ms made it %v", m.Mean)
	}
}

func TestOldSamplesFade(t *testing.T) {
	c := newClock()
	e := node(c, lax, "a")
	e.Observe(addr("192.0.2.7"), 10*ms, routing.TCP)
	e.Observe(addr("192.0.2.7"), 10*ms, routing.TCP)
	c.Add(6 * time.Hour)
	if m := measured(e, "192.0.2.7", lax); !near(m.N, 1) || m.Mean != 10 {
		t.Errorf("after half a life: %+v, want one sample", m)
	}
	e.Observe(addr("192.0.2.7"), 16*ms, routing.TCP)
	if m := measured(e, "192.0.2.7", lax); !near(m.N, 2) || !near(m.Mean, 13) {
		t.Errorf("an old sample weighs as much as a new one: %+v", m)
	}
	c.Add(30 * time.Hour)
	if list := e.Estimates(); len(list) != 0 {
		t.Errorf("after 30 hours: %+v, want it dropped", list)
	}
}

func TestPrefixes(t *testing.T) {
	e := node(newClock(), lax, "a")
	for _, a := range []string{"192.0.2.1", "192.0.2.255", "::ffff:192.0.2.9", "2001:db8:1::1", "2001:db8:1:ffff::1", "2001:db8:2::1"} {
		e.Observe(addr(a), 10*ms, routing.TCP)
	}
	for a, n := range map[string]float64{"192.0.2.1": 3, "2001:db8:1::5": 2, "2001:db8:2::5": 1} {
		if m := measured(e, a, lax); m.N != n {
			t.Errorf("%s: %v samples, want %v", a, m.N, n)
		}
	}
}

func TestBadSamplesAreRefused(t *testing.T) {
	e := node(newClock(), lax, "a")
	for _, c := range []struct {
		zone, client string
		rtt          time.Duration
	}{
		{lax, "192.0.2.1", 0}, {lax, "192.0.2.1", -ms}, {lax, "192.0.2.1", time.Minute},
		{lax, "0.0.0.0", ms}, {lax, "224.0.0.1", ms}, {lax, "ff02::1", ms}, {lax, "255.255.255.255", ms},
	} {
		if err := e.ObserveAt(c.zone, addr(c.client), c.rtt, routing.Beacon); !errors.Is(err, latency.ErrSample) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, zone := range []string{"", "a b", "é", fmt.Sprintf("%065d", 0)} {
		if e.ObserveAt(zone, addr("192.0.2.1"), ms, routing.Beacon) == nil {
			t.Errorf("zone %q is taken", zone)
		}
	}
	e.Observe(netip.Addr{}, ms, routing.TCP)
	if list := e.Estimates(); len(list) != 0 {
		t.Errorf("estimates %+v", list)
	}
}

func TestZonesAreBounded(t *testing.T) {
	e := node(newClock(), lax, "a")
	var err error
	for i := range 100 {
		err = e.ObserveAt(fmt.Sprint("zone-", i), addr("192.0.2.1"), ms, routing.Beacon)
	}
	if err == nil {
		t.Error("a hundred zones are taken")
	}
	if m := measured(e, "192.0.2.1", "zone-5"); m.N != 1 {
		t.Errorf("zone-5: %+v", m)
	}
	if err := e.ObserveAt(lax, addr("192.0.2.1"), ms, routing.Beacon); err != nil {
		t.Errorf("own zone: %v", err)
	}
}

// One client that sends beacons without pause counts once a second.
func TestBeaconsCannotFlood(t *testing.T) {
	c := newClock()
	e := node(c, lax, "a")
	for range 1000 {
		e.Observe(addr("192.0.2.1"), 1*ms, routing.Beacon)
	}
	e.Observe(addr("192.0.2.2"), 11*ms, routing.TCP)
	if m := measured(e, "192.0.2.1", lax); m.N != 2 || m.Mean != 6 {
		t.Errorf("%+v, want one beacon and one connection", m)
	}
	c.Add(time.Second)
	e.Observe(addr("192.0.2.1"), 1*ms, routing.Beacon)
	if m := measured(e, "192.0.2.1", lax); m.N < 2.9 {
		t.Errorf("%+v, want the later beacon too", m)
	}
}

func TestPrefixesAreBounded(t *testing.T) {
	c := newClock()
	e := latency.New(lax, latency.Options{Now: c.Now, MaxPrefixes: 640})
	for i := range 100_000 {
		c.Add(ms)
		e.Observe(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(i >> 16)}), 10*ms, routing.TCP)
	}
	list := e.Estimates()
	if len(list) > 640 || len(list) < 500 {
		t.Errorf("%d prefixes are kept, want 640 at most", len(list))
	}
}

func TestConcurrentUse(t *testing.T) {
	a, b := node(newClock(), lax, "a"), node(newClock(), phx, "b")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				a.Observe(netip.AddrFrom4([4]byte{10, byte(g), byte(i), 1}), 10*ms, routing.TCP)
				if err := a.ObserveAt(fmt.Sprint("zone-", i%8), addr("192.0.2.1"), ms, routing.Beacon); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				if d := a.Digest(); d != nil {
					if err := b.Merge(d); err != nil {
						t.Error(err)
					}
				}
				a.Estimates()
				b.Estimates()
				b.Targets()
			}
		})
	}
	wg.Wait()
}

func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	e := latency.New(lax, latency.Options{Reg: reg})
	latency.NewProber(e, latency.ProberOptions{Reg: reg})
	e.Observe(addr("192.0.2.1"), 10*ms, routing.TCP)
	if err := e.Merge([]byte("hello")); err == nil {
		t.Error("Merge(hello) is taken")
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func BenchmarkObserve(b *testing.B) {
	e := latency.New(lax, latency.Options{})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		e.Observe(netip.AddrFrom4([4]byte{10, byte(i >> 5), byte(i), 1}), 10*ms, routing.TCP)
		i++
	}
}

// Whoever has a large IPv6 network can come from 65,536 prefixes and more, once each. That must not cost the fleet what
// it knows of those who come often.
func TestStrangersDoNotDisplaceRegulars(t *testing.T) {
	c := newClock()
	e := latency.New(lax, latency.Options{Node: "a", Now: c.Now, MaxPrefixes: 64 * 64})
	regular := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i), 7}) }
	for i := range 200 {
		for range 10 {
			e.Observe(regular(i), 8*ms, routing.TCP)
		}
	}
	c.Add(time.Hour)
	for i := range 50_000 {
		stranger := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 8), byte(i), 15: 1})
		e.Observe(stranger, 8*ms, routing.TCP)
	}
	left := 0
	for _, p := range e.Estimates() {
		if p.Prefix.Addr().Is4() {
			left++
		}
	}
	if left < 198 {
		t.Errorf("%d of 200 prefixes that came often are left", left)
	}
}

// A clock that was ahead and is set back does not silence beacons until it gets there again.
func TestBeaconsAfterClockIsSetBack(t *testing.T) {
	c := newClock()
	e := node(c, lax, "a")
	e.Observe(addr("192.0.2.7"), 8*ms, routing.Beacon)
	c.Add(-time.Hour)
	e.Observe(addr("192.0.2.7"), 8*ms, routing.Beacon)
	if m := measured(e, "192.0.2.7", lax); m.N != 2 {
		t.Errorf("%+v, want 2 samples", m)
	}
}
