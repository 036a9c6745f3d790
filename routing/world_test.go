package routing_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	home = "us-west-2"
	lax  = "us-west-2-lax-1a"
	phx  = "us-west-2-phx-2a"
)

var (
	oregon     = config.LatLon{Lat: 45.84, Lon: -119.70}
	losAngeles = config.LatLon{Lat: 34.05, Lon: -118.24}
	phoenix    = config.LatLon{Lat: 33.45, Lon: -112.07}
)

// world is a fleet as a Router sees it; tests change it between builds and questions.
type world struct {
	t         *testing.T
	cfg       *config.Config
	zones     []routing.Zone
	estimates map[netip.Prefix]map[string]routing.Measured
	places    map[netip.Prefix]config.LatLon
	onward    map[string]time.Duration
	dice      float64
	log       bytes.Buffer
	reg       *prometheus.Registry

	mu      sync.Mutex // guards down and drained, which answers read
	down    map[string]bool
	drained map[string]bool
	*routing.Router
}

// newWorld has the Region and two Local Zones with two nodes each, and one name; change it, then start it.
func newWorld(t *testing.T) *world {
	cfg := &config.Config{
		Home:    home,
		Origins: []config.Origin{{Name: "app"}},
		Sites:   []config.Site{{Name: "play", Routes: []config.Route{{Path: "/**", Origin: "app"}}}},
		DNS:     config.DNS{Names: []config.Name{name("play.example.com")}},
		Routing: config.Routing{Build: 5 * time.Second, Probe: "icmp"},
	}
	return &world{
		t: t, cfg: cfg, dice: 1, reg: prometheus.NewRegistry(),
		zones: []routing.Zone{
			zone(lax, losAngeles, "203.0.113.10", "203.0.113.11"),
			zone(phx, phoenix, "203.0.113.20", "203.0.113.21"),
			zone(home, oregon, "198.51.100.5", "198.51.100.6"),
		},
		estimates: map[netip.Prefix]map[string]routing.Measured{},
		places:    map[netip.Prefix]config.LatLon{},
		onward:    map[string]time.Duration{},
		down:      map[string]bool{}, drained: map[string]bool{},
	}
}

func name(n string) config.Name {
	return config.Name{Name: n, Site: "play", Measure: config.MeasureZone, Steer: config.SteerMeasured, TTL: 20 * time.Second}
}

func zone(n string, at config.LatLon, addrs ...string) routing.Zone {
	z := routing.Zone{Name: n, Region: !strings.Contains(n, "-2-"), Parent: home, At: at, Located: true, Mode: config.ModeServe}
	for _, a := range addrs {
		z.Nodes = append(z.Nodes, routing.Node{ID: a, Zone: n, V4: addr(a)})
	}
	return z
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func (w *world) start() *world {
	w.Router = routing.NewRouter(w.cfg, routing.Sources{
		Zones: func() []routing.Zone { return slices.Clone(w.zones) }, Home: home, Estimates: w.list, Locate: w.locate,
		Onward: func(zone, origin string) (time.Duration, bool) { d, ok := w.onward[zone+" "+origin]; return d, ok },
		Up: func(node string, _ []string) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return !w.down[node]
		},
		Drained: func(zone, node string) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.drained[zone] || w.drained[node]
		},
	}, routing.Options{Log: slog.New(slog.NewTextHandler(&w.log, nil)), Reg: w.reg, Rand: func() float64 { return w.dice }})
	return w
}

func (w *world) list() []routing.PrefixEstimate {
	var list []routing.PrefixEstimate
	for p, zones := range w.estimates {
		e := routing.PrefixEstimate{Prefix: p}
		for _, m := range zones {
			e.Zones = append(e.Zones, m)
		}
		list = append(list, e)
	}
	return list
}

// locate finds the most specific place, and the widest network that has only it.
func (w *world) locate(a netip.Addr) (routing.Place, bool) {
	if len(w.places) == 0 {
		return routing.Place{}, false
	}
	place, ok, bits := routing.Place{}, false, -1
	for p, at := range w.places {
		if p.Contains(a) && p.Bits() > bits {
			place.At, ok, bits = at, true, p.Bits()
		}
	}
	for bits = max(bits, 0); ; bits++ {
		place.Prefix, _ = a.Prefix(bits)
		inside := false
		for p := range w.places {
			inside = inside || p.Bits() >= bits && place.Prefix.Overlaps(p) && !p.Contains(a)
		}
		if !inside {
			return place, ok
		}
	}
}

// measure sets what samples say about a prefix and a zone, and forgets what they said before.
func (w *world) measure(p, zone string, ms, n float64) {
	key := prefix(p)
	if w.estimates[key] == nil {
		w.estimates[key] = map[string]routing.Measured{}
	}
	w.estimates[key][zone] = routing.Measured{Zone: zone, Mean: ms, N: n}
}

// set marks all nodes of zones as down or up.
func (w *world) set(down bool, zones ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, z := range w.zones {
		for _, n := range z.Nodes {
			if slices.Contains(zones, z.Name) {
				w.down[n.ID] = down
			}
		}
	}
}

func (w *world) ask(client string) routing.Answer {
	w.t.Helper()
	a, ok := w.Answer("play.example.com", addr(client))
	if !ok {
		w.t.Fatalf("Answer(play.example.com, %s): not a steered name", client)
	}
	return a
}

// expect checks the zone and the reason of an answer.
func (w *world) expect(client, zone string, reason routing.Reason) routing.Answer {
	w.t.Helper()
	a := w.ask(client)
	if a.Zone != zone || a.Reason != reason {
		e, _ := w.Explain("", addr(client))
		w.t.Fatalf("answer to %s: %s (%v), want %s (%v)\n%s", client, a.Zone, a.Reason, zone, reason, e.Why)
	}
	return a
}
