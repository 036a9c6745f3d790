package routing_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

func TestExplainInWords(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*world)
		want   string
	}{
		{"measured", func(w *world) { w.measure(network, lax, 7.4, 14); w.measure(network, home, 28, 20) },
			"us-west-2-lax-1a: estimated 8.4 ms ± 2.8 from 14 samples, 12.8 ms ahead of us-west-2-phx-2a; healthy"},
		{"one sample", func(w *world) { w.measure(network, lax, 8, 0.6) },
			"us-west-2-lax-1a: estimated 11.5 ms ± 5.6 from 1 sample, 9.7 ms ahead of us-west-2-phx-2a; healthy"},
		{"distance", func(*world) {},
			"us-west-2-lax-1a: 0 km away, so 12.0 ms expected (not measured), 9.2 ms ahead of us-west-2-phx-2a; healthy"},
		{"unknown", func(w *world) { clear(w.places) },
			"us-west-2: 59.0 ms assumed (not measured, place unknown), 1.0 ms ahead of us-west-2-lax-1a; healthy"},
		{"down", func(w *world) { w.set(true, lax) },
			"us-west-2-phx-2a: 574 km away, so 21.2 ms expected (not measured), 11.9 ms ahead of us-west-2, us-west-2-lax-1a would take 12.0 ms but is not named (down); healthy"},
		{"draining", func(w *world) { w.drained[lax] = true },
			"us-west-2-phx-2a: 574 km away, so 21.2 ms expected (not measured), 11.9 ms ahead of us-west-2, us-west-2-lax-1a would take 12.0 ms but is not named (draining); healthy"},
		{"shadow", func(w *world) { w.zones[0].Mode = config.ModeShadow },
			"us-west-2-phx-2a: 574 km away, so 21.2 ms expected (not measured), 11.9 ms ahead of us-west-2, us-west-2-lax-1a would take 12.0 ms but is not named (mode shadow); healthy"},
		{"held", func(w *world) { w.measure(network, lax, 24, 20) },
			"us-west-2-lax-1a: estimated 22.0 ms ± 2.4 from 20 samples, kept although us-west-2-phx-2a is 0.8 ms better, which is less than the 5.0 ms it takes to move, 11.1 ms ahead of us-west-2; healthy"},
		{"held for a build", func(w *world) { w.measure(network, lax, 60, 20) },
			"us-west-2-lax-1a: estimated 52.0 ms ± 2.4 from 20 samples, kept although us-west-2-phx-2a is 30.8 ms better, but not for two builds yet; healthy"},
		{"all down", func(w *world) { w.set(true, lax, phx, home) },
			"no zone of the name is up and serving, failing open to us-west-2-lax-1a: 0 km away, so 12.0 ms expected (not measured) (down)"},
		{"only", func(w *world) { w.cfg.DNS.Names[0].Zones = []string{phx} },
			"us-west-2-phx-2a: 574 km away, so 21.2 ms expected (not measured), the only zone that serves the name; healthy"},
		{"to origin", func(w *world) { w.cfg.DNS.Names[0].Measure = config.MeasureToOrigin; w.onward[lax+" app"] = 4e6 },
			"us-west-2-lax-1a: 0 km away, so 12.0 ms expected (not measured) plus 4.0 ms on to the origin, 17.1 ms ahead of us-west-2; healthy"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t)
			w.places[prefix(network)] = losAngeles
			w.start()
			c.change(w)
			w.Rebuild()
			e, err := w.Explain("", addr(client))
			if err != nil || e.Why != c.want {
				t.Errorf("got  %s\nwant %s\n(%v)", e.Why, c.want, err)
			}
			if e.Zone == "" || e.Candidates[0].Zone != e.Zone {
				t.Errorf("zone %q, first candidate %+v", e.Zone, e.Candidates[0])
			}
		})
	}
}

func TestExplainJSON(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.measure(network, lax, 7.4, 14)
	w.zones[1].Located = false
	w.start()
	w.down["203.0.113.10"] = true
	e, err := w.Explain("play.example.com", addr("::ffff:192.0.2.7"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"name":"play.example.com","client":"192.0.2.7","prefix":"192.0.2.0/24","scope":"192.0.2.0/24","zone":"us-west-2-lax-1a","reason":"measured"`,
		`"fail_open":false,"ttl_seconds":20,"nodes":["203.0.113.11"]`,
		`{"zone":"us-west-2-lax-1a","estimate_ms":8.422,"sd_ms":2.828,"samples":14,"source":"measured","onward_ms":0,"total_ms":8.422,"distance_km":0,"health":"up","healthy":true,"nodes_up":1,"reason":"chosen"}`,
		`"zone":"us-west-2-phx-2a","estimate_ms":60,"sd_ms":6,"samples":0,"source":"prior","onward_ms":0,"total_ms":60,"distance_km":null`,
		`"reason":"51.6 ms behind"`,
	} {
		if !strings.Contains(string(b), part) {
			t.Errorf("no %s in\n%s", part, b)
		}
	}
}

func TestExplainErrors(t *testing.T) {
	w := newWorld(t).start()
	if _, err := w.Explain("other.example.com", addr(client)); !errors.Is(err, routing.ErrUnknownName) || !strings.Contains(err.Error(), "have: play.example.com") {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := w.Explain("", netip.Addr{}); err == nil {
		t.Error("no client: no error")
	}
	w.cfg.DNS.Names = nil
	w.Rebuild()
	if _, err := w.Explain("", addr(client)); err == nil || !strings.Contains(err.Error(), "dns.names") {
		t.Errorf("no names: %v", err)
	}
}
