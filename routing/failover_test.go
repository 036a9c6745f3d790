package routing_test

import (
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

// A failover and the way back wait for no build, whatever the hysteresis.
func TestFailoverAndRecovery(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.places[prefix("10.0.0.0/8")] = losAngeles
	w.measure(network, lax, 9, 20)
	w.start()
	for _, c := range []struct {
		client string
		reason routing.Reason
	}{{client, routing.ReasonMeasured}, {"10.1.1.1", routing.ReasonDistance}} {
		w.expect(c.client, lax, c.reason)
		w.set(true, lax)
		w.expect(c.client, phx, routing.ReasonFailover)
		w.set(true, phx)
		if a := w.expect(c.client, home, routing.ReasonFailover); a.FailOpen || len(a.Nodes) != 2 {
			t.Errorf("two Local Zones down and the Region healthy: %+v", a)
		}
		w.set(false, phx)
		w.expect(c.client, phx, routing.ReasonFailover)
		w.set(false, lax)
		w.expect(c.client, lax, c.reason)
	}
}

// An outage that lasts for many builds leaves the order alone, so the way back is at once too.
func TestRecoveryAfterManyBuilds(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.measure(network, lax, 9, 20)
	w.start()
	w.set(true, lax)
	for range 10 {
		w.Rebuild()
		w.expect(client, phx, routing.ReasonFailover)
	}
	w.set(false, lax)
	w.expect(client, lax, routing.ReasonMeasured)
}

func TestDeadNodeLeavesItsZone(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.start()
	w.down["203.0.113.10"] = true
	a := w.expect(client, lax, routing.ReasonDistance)
	if len(a.Nodes) != 1 || a.Nodes[0].ID != "203.0.113.11" {
		t.Errorf("nodes %v, want the live one", a.Nodes)
	}
}

func TestEveryZoneDownFailsOpen(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.start()
	w.set(true, lax, phx, home)
	for range 3 {
		if a := w.expect(client, lax, routing.ReasonFailOpen); !a.FailOpen || len(a.Nodes) != 2 {
			t.Errorf("answer %+v, want both nodes of the nearest zone and FailOpen", a)
		}
		w.Rebuild()
	}
	if n := strings.Count(w.log.String(), "fails open"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, &w.log)
	}
	if got := metric(t, w, "nearzone_routing_fail_open_answers_total"); got != 3 {
		t.Errorf("fail open answers %v, want 3", got)
	}
	if got := metric(t, w, "nearzone_routing_name_failing_open"); got != 1 {
		t.Errorf("failing open %v, want 1", got)
	}
	w.set(false, phx)
	w.expect(client, phx, routing.ReasonFailover)
	if got := metric(t, w, "nearzone_routing_name_failing_open"); got != 0 {
		t.Errorf("failing open %v after recovery, want 0", got)
	}
	if n := strings.Count(w.log.String(), "no longer fails open"); n != 1 {
		t.Errorf("recovery told %d times, want once:\n%s", n, &w.log)
	}
}

func metric(t *testing.T, w *world, name string) float64 {
	t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestModes(t *testing.T) {
	for _, mode := range []config.Mode{config.ModeShadow, config.ModeDrain} {
		w := newWorld(t)
		w.places[prefix(network)] = losAngeles
		w.measure(network, lax, 5, 20)
		w.zones[0].Mode = mode
		w.start()
		if a := w.ask(client); a.Zone != phx || a.FailOpen {
			t.Errorf("%s: %+v, want %s", mode, a, phx)
		}
		w.set(true, phx, home)
		if a := w.expect(client, lax, routing.ReasonFailOpen); !a.FailOpen {
			t.Errorf("%s: with nothing else up: %+v, want FailOpen", mode, a)
		}
	}
}

func TestDrained(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.start()
	w.drained["203.0.113.10"] = true
	if a := w.expect(client, lax, routing.ReasonDistance); len(a.Nodes) != 1 {
		t.Errorf("a drained node is named: %v", a.Nodes)
	}
	w.drained[lax] = true
	w.expect(client, phx, routing.ReasonFailover)
	delete(w.drained, lax)
	w.expect(client, lax, routing.ReasonDistance)

	// Draining beats being down: what drains still answers.
	w.drained[lax] = true
	w.set(true, phx, home)
	if a := w.expect(client, lax, routing.ReasonFailOpen); !a.FailOpen {
		t.Errorf("answer %+v, want FailOpen", a)
	}
}
