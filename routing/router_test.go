package routing_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

var t0 = time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)

const (
	client  = "192.0.2.7"
	network = "192.0.2.0/24"
)

func TestUnmeasuredClientsGoByDistance(t *testing.T) {
	w := newWorld(t)
	w.places[prefix("192.0.2.0/24")] = losAngeles
	w.places[prefix("10.1.0.0/16")] = phoenix
	w.start()
	w.expect(client, lax, routing.ReasonDistance)
	w.expect("10.1.2.3", phx, routing.ReasonDistance)
	w.expect("::ffff:10.1.2.3", phx, routing.ReasonDistance)
	w.expect("172.16.0.1", home, routing.ReasonUnknown)
}

func TestNoGeographyGoesHome(t *testing.T) {
	w := newWorld(t)
	w.zones[0].Located = false
	w.start()
	a := w.expect(client, home, routing.ReasonUnknown)
	if want := prefix("0.0.0.0/0"); a.Scope != want {
		t.Errorf("scope %v of a table that tells nobody apart, want %v", a.Scope, want)
	}
	if a.TTL != 20*time.Second || len(a.Nodes) != 2 || a.FailOpen {
		t.Errorf("answer %+v", a)
	}
	if a := w.ask("2001:db8::1"); a.Scope != prefix("::/0") {
		t.Errorf("IPv6 scope %v", a.Scope)
	}
}

func TestSteerDistanceIgnoresSamples(t *testing.T) {
	w := newWorld(t)
	w.cfg.DNS.Names[0].Steer = config.SteerDistance
	w.places[prefix(network)] = losAngeles
	w.measure(network, lax, 90, 20)
	w.start()
	w.Rebuild()
	w.expect(client, lax, routing.ReasonDistance)
}

// A zone takes over when it is better by the band at two builds in a row, and never for less.
func TestHysteresis(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.start()
	w.measure(network, lax, 60, 20)
	w.measure(network, phx, 20, 20)
	w.Rebuild()
	w.expect(client, lax, routing.ReasonHeld)
	w.Rebuild()
	w.expect(client, phx, routing.ReasonMeasured)

	w.measure(network, lax, 17.5, 20)
	for range 5 {
		w.Rebuild()
		w.expect(client, phx, routing.ReasonHeld)
	}
	w.measure(network, lax, 8, 20)
	w.Rebuild()
	w.expect(client, phx, routing.ReasonHeld)
	w.Rebuild()
	w.expect(client, lax, routing.ReasonMeasured)
}

func TestBandGrowsWithTheRoundTrip(t *testing.T) {
	w := newWorld(t)
	w.cfg.DNS.Names[0].Zones = []string{home, lax}
	w.start()
	w.expect(client, home, routing.ReasonUnknown)
	w.measure(network, home, 200, 20) // the estimate is 176
	w.measure(network, lax, 180, 20)  // 160
	for range 5 {
		w.Rebuild()
		w.expect(client, home, routing.ReasonHeld)
	}
	w.measure(network, lax, 174, 20) // 155
	w.Rebuild()
	w.Rebuild()
	w.expect(client, lax, routing.ReasonMeasured)
}

// A table that nothing came before has nothing to hold to.
func TestFirstBuildGoesByEstimates(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.measure(network, lax, 60, 20)
	w.start()
	w.expect(client, phx, routing.ReasonMeasured)
}

// Estimates that change places at every build move nobody.
func TestFlappingEstimates(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.start()
	for i := range 20 {
		good, bad := lax, phx
		if i%2 == 0 {
			good, bad = phx, lax
		}
		w.measure(network, good, 10, 20)
		w.measure(network, bad, 50, 20)
		w.Rebuild()
		if a := w.ask(client); a.Zone != lax {
			t.Fatalf("build %d moved the client to %s", i, a.Zone)
		}
	}
}

func TestMeasureToOrigin(t *testing.T) {
	w := newWorld(t)
	w.cfg.Origins = append(w.cfg.Origins, config.Origin{Name: "far"})
	w.cfg.Sites[0].Routes = append([]config.Route{{Path: "/far/**", Origin: "far"}}, w.cfg.Sites[0].Routes...)
	w.cfg.DNS.Names[0].Measure = config.MeasureToOrigin
	w.places[prefix(network)] = losAngeles
	ms := time.Millisecond
	w.onward = map[string]time.Duration{
		lax + " app": 22 * ms, lax + " far": 80 * ms, // the farthest counts
		phx + " app": 25 * ms, phx + " far": 20 * ms,
		home + " app": 1 * ms, home + " far": 60 * ms,
	}
	w.start()
	w.expect(client, phx, routing.ReasonDistance) // 21+25, against 12+80 and 33+60

	// A way that changes by less than the band changes nothing; by more it does.
	w.onward[lax+" far"] = 30 * ms
	w.onward[phx+" app"] = 26 * ms
	w.Rebuild()
	w.expect(client, lax, routing.ReasonDistance)
	e, err := w.Explain("", addr(client))
	if err != nil || e.Candidates[1].Zone != phx || e.Candidates[1].Onward != 25 {
		t.Errorf("candidates %+v, %v; want the way from %s held at 25 ms", e.Candidates, err, phx)
	}
}

// Before anything is known of the ways to an origin, the Region is taken to be next to it.
func TestMeasureToOriginUnknown(t *testing.T) {
	w := newWorld(t)
	w.cfg.DNS.Names[0].Measure = config.MeasureToOrigin
	w.places[prefix(network)] = losAngeles
	w.start()
	w.expect(client, home, routing.ReasonDistance) // 33 ms, against 12 and 23 onward
}

func TestExplore(t *testing.T) {
	setup := func(change func(*world)) *world {
		w := newWorld(t)
		w.cfg.Routing.Explore = 0.01
		w.places[prefix(network)] = losAngeles
		w.places[prefix("10.0.0.0/8")] = losAngeles
		w.measure(network, lax, 9, 20)
		w.measure(network, phx, 20, 2)
		w.measure(network, home, 30, 5)
		w.dice = 0.0099
		change(w)
		return w.start()
	}
	w := setup(func(*world) {})
	if a := w.expect(client, phx, routing.ReasonExplored); a.Scope != prefix(network) || len(a.Nodes) != 2 {
		t.Errorf("explored answer %+v, want the scope of the prefix alone", a)
	}
	w.dice = 0.01
	w.expect(client, lax, routing.ReasonMeasured)
	w.dice = 0
	w.expect("10.1.1.1", lax, routing.ReasonDistance) // no traffic seen: nobody to learn about
	w.set(true, phx)
	w.expect(client, lax, routing.ReasonMeasured)

	for _, c := range []struct {
		what   string
		change func(*world)
		zone   string
	}{
		{"all zones known", func(w *world) { w.measure(network, phx, 20, 3) }, lax},
		{"all zones known and nobody probes", func(w *world) { w.measure(network, phx, 20, 3); w.cfg.Routing.Probe = "off" }, home},
		{"too far", func(w *world) { w.measure(network, phx, 300, 2) }, lax},
		{"sessions stick to the zone", func(w *world) {
			w.cfg.Streams = []config.Stream{{Name: "match", Origin: "app"}}
			w.cfg.DNS.Names[0].Site, w.cfg.DNS.Names[0].Stream = "", "match"
		}, lax},
		{"by distance", func(w *world) { w.cfg.DNS.Names[0].Steer = config.SteerDistance }, lax},
	} {
		w := setup(c.change)
		if a := w.ask(client); a.Zone != c.zone || (a.Reason == routing.ReasonExplored) != (a.Zone != lax) {
			t.Errorf("%s: %s (%v), want %s", c.what, a.Zone, a.Reason, c.zone)
		}
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	w.cfg.DNS.Names = append(w.cfg.DNS.Names, name("*.play.example.com"), name("*.a.play.example.com"))
	w.cfg.DNS.Names[2].Zones = []string{phx}
	w.start()
	for _, c := range []struct{ ask, is string }{
		{"play.example.com", "play.example.com"},
		{"x.play.example.com", "*.play.example.com"},
		{"x.y.play.example.com", "*.play.example.com"},
		{"x.a.play.example.com", "*.a.play.example.com"},
		{"a.play.example.com", "*.play.example.com"},
		{"example.com", ""},
		{"xplay.example.com", ""},
		{"", ""},
	} {
		if a, ok := w.Answer(c.ask, addr(client)); ok != (c.is != "") || a.Name != c.is {
			t.Errorf("Answer(%q) is of %q, %v; want %q", c.ask, a.Name, ok, c.is)
		}
	}
	a, _ := w.Answer("x.a.play.example.com", addr(client))
	if a.Zone != phx || a.Reason != routing.ReasonOnly || a.Scope != prefix("0.0.0.0/0") {
		t.Errorf("a name with one zone: %+v, want it for everybody", a)
	}
}

func TestV6(t *testing.T) {
	v6 := func(z *routing.Zone, a string) { z.Nodes[0].V6 = addr(a) }
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.start()
	if a := w.ask(client); len(a.V6) != 0 {
		t.Errorf("V6 %v of a fleet without", a.V6)
	}
	v6(&w.zones[2], "2001:db8::5")
	w.Rebuild()
	if a := w.ask(client); len(a.V6) != 0 {
		t.Errorf("V6 %v of a zone 20 ms behind", a.V6)
	}
	v6(&w.zones[1], "2001:db8::20")
	w.measure(network, lax, 15, 20)
	w.measure(network, phx, 16, 20)
	w.Rebuild()
	if a := w.expect(client, lax, routing.ReasonMeasured); len(a.V6) != 2 || a.V6[0].Zone != phx {
		t.Errorf("V6 %v, want the nodes of %s, which is within the band", a.V6, phx)
	}
	w.set(true, phx)
	if a := w.ask(client); len(a.V6) != 0 {
		t.Errorf("V6 %v of a zone that is down", a.V6)
	}
	v6(&w.zones[0], "2001:db8::10")
	w.Rebuild()
	if a := w.ask(client); len(a.V6) != 2 || a.V6[0].Zone != lax {
		t.Errorf("V6 %v, want the zone's own", a.V6)
	}
	// A zone that most clients could not reach leads nobody.
	w.zones[0].Nodes = []routing.Node{{ID: "six", Zone: lax, V6: addr("2001:db8::10")}}
	w.set(false, phx)
	w.Rebuild()
	if a := w.ask(client); a.Zone != phx || len(a.V6) != 2 || a.V6[0].Zone != phx {
		t.Errorf("answer %+v, want %s for both families", a, phx)
	}
}

func TestNoNodes(t *testing.T) {
	w := newWorld(t)
	w.zones = nil
	w.start()
	if a := w.ask(client); !a.FailOpen || a.Zone != "" || len(a.Nodes) != 0 {
		t.Errorf("answer of a fleet without nodes: %+v", a)
	}
	if e, err := w.Explain("", addr(client)); err != nil || e.Why == "" || e.Candidates == nil {
		t.Errorf("explanation %+v, %v", e, err)
	}
	if a, ok := w.Answer("play.example.com", netip.Addr{}); !ok || a.Scope.IsValid() {
		t.Errorf("answer to nobody: %+v", a)
	}
}

func TestRunRebuilds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.places[prefix(network)] = losAngeles
		w.start()
		w.measure(network, lax, 60, 20)
		w.measure(network, phx, 20, 20)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		began := w.Table().Built()
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		w.expect(client, phx, routing.ReasonMeasured)
		if got := w.Table().Built().Sub(began); got != 10*time.Second {
			t.Errorf("the second build was %v after the first, want 10s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestReloadKeepsTheOrder(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.start()
	w.measure(network, lax, 60, 20)
	w.measure(network, phx, 20, 20)
	w.Rebuild()
	w.Rebuild()
	next := *w.cfg
	next.DNS.Names = append([]config.Name{name("new.example.com")}, w.cfg.DNS.Names...)
	next.Routing.Build = time.Hour
	apply, err := w.Reload(&next)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := w.Answer("new.example.com", addr(client)); ok {
		t.Error("the new name is answered before apply")
	}
	w.zones = append([]routing.Zone{zone("us-west-2-den-1a", phoenix, "203.0.113.99")}, w.zones...)
	apply()
	w.expect(client, phx, routing.ReasonMeasured)
	if _, ok := w.Answer("new.example.com", addr(client)); !ok {
		t.Error("the new name is not answered")
	}
}

func TestMetricNames(t *testing.T) {
	w := newWorld(t).start()
	w.ask(client)
	problems, err := testutil.GatherAndLint(w.reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", []promlint.Problem(problems), err)
	}
}

func TestPrior(t *testing.T) {
	nowhere := zone(phx, phoenix)
	nowhere.Located = false
	for _, c := range []struct {
		zone  routing.Zone
		known bool
		want  float64
	}{
		{zone(lax, losAngeles), true, 12},
		{zone(home, oregon), true, 33.1},
		{nowhere, true, 60},
		{zone(lax, losAngeles), false, 60},
		{zone(home, oregon), false, 59},
	} {
		if got := routing.Prior(c.zone, routing.Place{At: losAngeles}, c.known); got < c.want-0.1 || got > c.want+0.1 {
			t.Errorf("Prior(%s, known %v) = %.2f, want %.1f", c.zone.Name, c.known, got, c.want)
		}
	}
}

// The series of a name that is gone go with it.
func TestReloadForgetsNames(t *testing.T) {
	w := newWorld(t).start()
	w.set(true, lax, phx, home)
	w.ask(client)
	if got := metric(t, w, "nearzone_routing_name_failing_open"); got != 1 {
		t.Fatalf("failing open %v, want 1", got)
	}
	next := *w.cfg
	next.DNS.Names = []config.Name{name("other.example.com")}
	apply, err := w.Reload(&next)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if got := metric(t, w, "nearzone_routing_name_failing_open"); got != 0 {
		t.Errorf("failing open %v of a name that is gone", got)
	}
}
