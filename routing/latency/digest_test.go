package latency_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/latency"
)

// sorted is Estimates in an order that can be compared.
func sorted(e *latency.Estimator) []routing.PrefixEstimate {
	list := e.Estimates()
	slices.SortFunc(list, func(a, b routing.PrefixEstimate) int { return a.Prefix.Compare(b.Prefix) })
	for _, p := range list {
		slices.SortFunc(p.Zones, func(a, b routing.Measured) int { return bytes.Compare([]byte(a.Zone), []byte(b.Zone)) })
	}
	return list
}

func merge(t *testing.T, into *latency.Estimator, digests ...[]byte) {
	t.Helper()
	for _, d := range digests {
		if err := into.Merge(d); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDigestCarriesEverything(t *testing.T) {
	c := newClock()
	a, b := node(c, lax, "a"), node(c, phx, "b")
	for _, client := range []string{"192.0.2.7", "198.51.100.1", "2001:db8:1::7"} {
		a.Observe(addr(client), 8*ms, routing.TCP)
		b.Observe(addr(client), 24*ms, routing.TCP)
	}
	if err := a.ObserveAt("us-west-2", addr("192.0.2.7"), 30*ms, routing.Beacon); err != nil {
		t.Fatal(err)
	}
	merge(t, b, a.Digest())
	merge(t, a, b.Digest())
	if x, y := sorted(a), sorted(b); !reflect.DeepEqual(x, y) || len(x) != 3 {
		t.Errorf("after an exchange:\n%+v\n%+v", x, y)
	}
	if m := measured(b, "192.0.2.1", "us-west-2"); m.Mean != 30 || m.N != 1 {
		t.Errorf("the zone of the beacon: %+v", m)
	}
}

// Digests that come twice, late or in the wrong order change nothing.
func TestMergeIsIdempotent(t *testing.T) {
	c := newClock()
	a := node(c, lax, "a")
	var digests [][]byte
	for i := range 5 {
		a.Observe(addr("192.0.2.7"), time.Duration(8+i)*ms, routing.TCP)
		a.Observe(netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), 9*ms, routing.TCP)
		digests = append(digests, a.Digest())
	}
	want := sorted(a)
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {4, 4, 0, 4, 2, 0}} {
		b := node(c, phx, "b")
		for _, i := range order {
			merge(t, b, digests[i])
		}
		if got := sorted(b); !reflect.DeepEqual(got, want) {
			t.Errorf("order %v:\n%+v\nwant\n%+v", order, got, want)
		}
	}
}

// Several nodes of a zone add up, and so do the runs of one node.
func TestNodesOfAZoneAddUp(t *testing.T) {
	c := newClock()
	dns := node(c, phx, "dns")
	one, two := node(c, lax, "one"), node(c, lax, "two")
	one.Observe(addr("192.0.2.7"), 10*ms, routing.TCP)
	two.Observe(addr("192.0.2.7"), 16*ms, routing.TCP)
	two.Observe(addr("192.0.2.7"), 16*ms, routing.TCP)
	merge(t, dns, one.Digest(), two.Digest())
	if m := measured(dns, "192.0.2.7", lax); m.N != 3 || m.Mean != 14 {
		t.Errorf("two nodes: %+v, want 3 samples of 14 ms", m)
	}
	c.Add(time.Millisecond)
	again := node(c, lax, "one") // has forgotten all
	again.Observe(addr("192.0.2.7"), 14*ms, routing.TCP)
	merge(t, dns, again.Digest())
	if m := measured(dns, "192.0.2.7", lax); !near(m.N, 4) || !near(m.Mean, 14) {
		t.Errorf("after a restart: %+v, want 4 samples of 14 ms", m)
	}
	merge(t, again, one.Digest())
	if m := measured(again, "192.0.2.7", lax); !near(m.N, 2) {
		t.Errorf("a node is told of its earlier run: %+v, want 2 samples", m)
	}
	merge(t, again, again.Digest())
	if m := measured(again, "192.0.2.7", lax); !near(m.N, 2) {
		t.Errorf("a node believes itself twice: %+v", m)
	}
}

// The clocks of two nodes need not agree, and what is merged fades like what is measured.
func TestMergedSamplesFade(t *testing.T) {
	here, there := newClock(), newClock()
	there.Add(1000 * time.Hour)
	a, b := node(there, lax, "a"), node(here, phx, "b")
	a.Observe(addr("192.0.2.7"), 10*ms, routing.TCP)
	there.Add(6 * time.Hour)
	merge(t, b, a.Digest())
	if m := measured(b, "192.0.2.7", lax); !near(m.N, 0.5) {
		t.Errorf("a sample of six hours ago: %+v, want half of one", m)
	}
	here.Add(20 * time.Hour)
	if list := b.Estimates(); len(list) != 0 {
		t.Errorf("a day later: %+v", list)
	}
}

// However much is measured, a digest is bounded, and the rest follows in the next ones, to late comers too.
func TestDigestsAreBounded(t *testing.T) {
	const prefixes = 20_000
	c := newClock()
	a, b, late := node(c, lax, "a"), node(c, phx, "b"), node(c, phx, "late")
	for i := range prefixes {
		a.Observe(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 10*ms, routing.TCP)
	}
	for range 4 {
		d := a.Digest()
		if len(d) > 256<<10 {
			t.Fatalf("a digest of %d bytes", len(d))
		}
		merge(t, b, d)
	}
	if n := len(b.Estimates()); n != prefixes {
		t.Errorf("%d prefixes arrived, want %d", n, prefixes)
	}
	rounds := 0
	for ; len(late.Estimates()) < prefixes && rounds < 100; rounds += 10 {
		for range 10 {
			merge(t, late, a.Digest())
		}
	}
	if rounds == 100 {
		t.Errorf("after %d digests a late comer knows %d of %d prefixes", rounds, len(late.Estimates()), prefixes)
	}
}

func TestMergedPrefixesAreBounded(t *testing.T) {
	c := newClock()
	a := node(c, lax, "a")
	small := latency.New(phx, latency.Options{Now: c.Now, MaxPrefixes: 100})
	for i := range 5000 {
		c.Add(ms)
		a.Observe(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 10*ms, routing.TCP)
	}
	merge(t, small, a.Digest())
	if n := len(small.Estimates()); n != 400 {
		t.Errorf("%d prefixes are kept, want 400", n)
	}
}

func TestSnapshotsAreBounded(t *testing.T) {
	c := newClock()
	dns := node(c, phx, "dns")
	for range 600 {
		c.Add(time.Second)
		again := node(c, lax, "restless")
		again.Observe(addr("192.0.2.7"), 10*ms, routing.TCP)
		merge(t, dns, again.Digest())
	}
	if m := measured(dns, "192.0.2.7", lax); m.N != 20 || !near(m.Mean, 10) {
		t.Errorf("%+v, want what one mean may hold", m)
	}
}

// A node may be called what cannot be told; its digests are taken all the same.
func TestLongNodeNames(t *testing.T) {
	c := newClock()
	a, b := node(c, lax, strings.Repeat("a", 300)), node(c, phx, "b")
	a.Observe(addr("192.0.2.7"), 10*ms, routing.TCP)
	merge(t, b, a.Digest())
	if m := measured(b, "192.0.2.7", lax); m.N != 1 {
		t.Errorf("%+v", m)
	}
}

func TestNothingToTell(t *testing.T) {
	if d := node(newClock(), lax, "a").Digest(); d != nil {
		t.Errorf("digest %x of nothing", d)
	}
}

func sample(c *clock) []byte {
	a := node(c, lax, "a")
	a.Observe(addr("192.0.2.7"), 8*ms, routing.TCP)
	a.Observe(addr("2001:db8::7"), 9*ms, routing.TCP)
	a.Observe(addr("198.51.100.7"), 9*ms, routing.Simulated)
	return a.Digest()
}

// A digest with any byte changed, cut or added is refused whole.
func TestCorruptDigestsAreRefused(t *testing.T) {
	c := newClock()
	good := sample(c)
	b := node(c, phx, "b")
	for i := range good {
		for _, bad := range [][]byte{slices.Concat(good[:i], []byte{good[i] ^ 0x10}, good[i+1:]), good[:i], append(slices.Clone(good), good[:i+1]...)} {
			if b.Merge(bad) == nil {
				t.Fatalf("a digest changed at byte %d is taken", i)
			}
		}
	}
	if list := b.Estimates(); len(list) != 0 {
		t.Errorf("estimates of refused digests: %+v", list)
	}
	merge(t, b, good)
	if n := len(b.Estimates()); n != 3 {
		t.Errorf("%d prefixes of the sound one, want 3", n)
	}
}

// A fleet that has more prefixes than fit makes room for a node that is new, or has started again: the node that
// told most gives way.
func TestNewcomersFindRoom(t *testing.T) {
	c := newClock()
	greedy := latency.New(lax, latency.Options{Node: "greedy", Now: c.Now, MaxPrefixes: 1 << 14})
	for i := range 2000 {
		greedy.Observe(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 9*ms, routing.TCP)
	}
	dns := latency.New(phx, latency.Options{Node: "dns", Now: c.Now, MaxPrefixes: 128})
	merge(t, dns, greedy.Digest())
	late := node(c, lax, "late")
	for i := range 20 {
		late.Observe(netip.AddrFrom4([4]byte{192, 0, byte(i), 1}), 9*ms, routing.TCP)
	}
	merge(t, dns, late.Digest())
	known := 0
	for i := range 20 {
		if measured(dns, netip.AddrFrom4([4]byte{192, 0, byte(i), 1}).String(), lax).N > 0 {
			known++
		}
	}
	if total := len(dns.Estimates()); known != 20 || total > 4*128 {
		t.Errorf("%d of the newcomer's 20 prefixes are known, %d in all (at most %d)", known, total, 4*128)
	}
}

// What one prefix can cost is bounded, however many zones peers say that they measure it from.
func TestZonesOfAPrefixAreBounded(t *testing.T) {
	c := newClock()
	dns := node(c, phx, "dns")
	dns.Observe(addr("192.0.2.7"), 24*ms, routing.TCP)
	for n := range 20 {
		liar := node(c, fmt.Sprintf("zone-%d", n), fmt.Sprintf("liar-%d", n))
		for z := range 60 {
			if err := liar.ObserveAt(fmt.Sprintf("zone-%d-%d", n, z), addr("192.0.2.7"), ms, routing.Beacon); err != nil {
				t.Fatal(err)
			}
		}
		merge(t, dns, liar.Digest())
	}
	list := dns.Estimates()
	if len(list) != 1 || len(list[0].Zones) > 128 {
		t.Fatalf("%d prefixes, the first with %d zones, want one of at most 128", len(list), len(list[0].Zones))
	}
	if m := measured(dns, "192.0.2.7", phx); m.Mean != 24 {
		t.Errorf("our own zone: %+v", m)
	}
}
