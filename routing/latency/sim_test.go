package latency_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/latency"
)

// earth is a small seeded world: zones and clients on a continent, straight lines that some paths detour from, some
// wrong geography, noise and spikes. The Router under test sees only what a fleet sees.
type earth struct {
	rng     *rand.Rand
	zones   []routing.Zone
	clients []netip.Addr
	thought map[netip.Prefix]config.LatLon    // what geography says
	truth   map[netip.Addr]map[string]float64 // ms
}

func newEarth(seed uint64, zones, clients int) *earth {
	e := &earth{rng: rand.New(rand.NewPCG(seed, 7)), thought: map[netip.Prefix]config.LatLon{}, truth: map[netip.Addr]map[string]float64{}}
	for i := range zones {
		name := fmt.Sprintf("zone-%d", i)
		e.zones = append(e.zones, routing.Zone{Name: name, Region: i == 0, At: e.somewhere(), Located: true,
			Nodes: []routing.Node{{ID: name, Zone: name, V4: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})}}})
	}
	for i := range clients {
		client := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 7})
		at := e.somewhere()
		e.clients = append(e.clients, client)
		e.thought[routing.PrefixOf(client)] = at
		if e.rng.Float64() < 0.08 {
			e.thought[routing.PrefixOf(client)] = e.somewhere()
		}
		access := 2 + 8*e.rng.Float64() // of the client, whatever the zone
		e.truth[client] = map[string]float64{}
		for _, z := range e.zones {
			rtt := access + 0.014*routing.Distance(at, z.At)
			if e.rng.Float64() < 0.25 {
				rtt += 10 + 70*e.rng.Float64()
			}
			e.truth[client][z.Name] = rtt
		}
	}
	return e
}

func (e *earth) somewhere() config.LatLon {
	return config.LatLon{Lat: 28 + 20*e.rng.Float64(), Lon: -122 + 45*e.rng.Float64()}
}

func (e *earth) locate(a netip.Addr) (routing.Place, bool) {
	at, ok := e.thought[routing.PrefixOf(a)]
	return routing.Place{At: at, Prefix: routing.PrefixOf(a)}, ok
}

// sample is one round trip with noise, and one in twenty times a spike.
func (e *earth) sample(client netip.Addr, zone string) time.Duration {
	rtt := e.truth[client][zone] + 4*e.rng.ExpFloat64()
	if e.rng.Float64() < 0.05 {
		rtt += 200 * e.rng.Float64()
	}
	return time.Duration(rtt * float64(ms))
}

func (e *earth) regret(client netip.Addr, zone string) float64 {
	best := e.truth[client][zone]
	for _, rtt := range e.truth[client] {
		best = min(best, rtt)
	}
	return e.truth[client][zone] - best
}

func (e *earth) router(steer config.Steer, explore config.Percent, probe string, estimates func() []routing.PrefixEstimate) *routing.Router {
	cfg := &config.Config{
		DNS:     config.DNS{Names: []config.Name{{Name: "play.example.com", Steer: steer, Measure: config.MeasureZone}}},
		Routing: config.Routing{Explore: explore, Probe: probe},
	}
	return routing.NewRouter(cfg, routing.Sources{
		Zones: func() []routing.Zone { return e.zones }, Home: e.zones[0].Name, Estimates: estimates, Locate: e.locate,
	}, routing.Options{Rand: e.rng.Float64})
}

// mean is the mean regret of a Router's answers when nobody measures.
func (e *earth) mean(r *routing.Router) float64 {
	sum := 0.0
	for _, c := range e.clients {
		a, _ := r.Answer("play.example.com", c)
		sum += e.regret(c, a.Zone)
	}
	return sum / float64(len(e.clients))
}

// live lets every client ask, connect and be measured, round after round, as a fleet of one node a zone would see
// it. It returns how often clients changed zones.
func (e *earth) live(r *routing.Router, dns *latency.Estimator, c *clock, rounds, probes int) (moves int) {
	last := map[netip.Addr]string{}
	for round := range rounds {
		for _, client := range e.clients {
			a, _ := r.Answer("play.example.com", client)
			e.observe(dns, client, a.Zone, routing.TCP)
			if was := last[client]; was != "" && was != a.Zone && a.Reason != routing.ReasonExplored {
				moves++
			}
			if a.Reason != routing.ReasonExplored {
				last[client] = a.Zone
			}
			if round == 1 {
				for _, z := range e.zones {
					for range probes {
						e.observe(dns, client, z.Name, routing.Probe)
					}
				}
			}
		}
		c.Add(5 * time.Second)
		r.Rebuild()
	}
	return moves
}

func (e *earth) observe(dns *latency.Estimator, client netip.Addr, zone string, src routing.Source) {
	if err := dns.ObserveAt(zone, client, e.sample(client, zone), src); err != nil {
		panic(err)
	}
}

// What is measured beats what is on the map: in a world with detours, the mean regret of the Router after some
// samples is well below that of distance, with probes and without, and its clients stay where they are.
func TestMeasuringBeatsDistance(t *testing.T) {
	for _, c := range []struct {
		what         string
		probe        string
		probes       int
		explore      config.Percent
		share        float64 // of the regret of distance, at most
		movesPerHead float64
	}{
		{"passive alone", "off", 0, 0, 0.25, 1},
		{"explored answers", "off", 0, 0.01, 0.25, 1},
		{"probes", "icmp", 3, 0.01, 0.2, 1},
	} {
		for seed := range uint64(3) {
			e := newEarth(seed, 8, 300)
			distance := e.mean(e.router(config.SteerDistance, 0, "off", nil))
			now := newClock()
			dns := latency.New(e.zones[0].Name, latency.Options{Now: now.Now, Prior: func(zone string, client netip.Addr) float64 {
				place, ok := e.locate(client)
				for _, z := range e.zones {
					if z.Name == zone {
						return routing.Prior(z, place, ok)
					}
				}
				return 0
			}})
			r := e.router(config.SteerMeasured, c.explore, c.probe, dns.Estimates)
			moves := float64(e.live(r, dns, now, 60, c.probes)) / float64(len(e.clients))
			measured := e.mean(e.router(config.SteerMeasured, 0, c.probe, dns.Estimates)) // no memory, no dice
			held := e.mean(r)
			t.Logf("%s, seed %d: mean regret %.1f ms by distance, %.1f ms measured (%.1f ms without hysteresis), %.2f moves a prefix", c.what, seed, distance, held, measured, moves)
			if held > c.share*distance || moves > c.movesPerHead {
				t.Errorf("%s, seed %d: regret %.1f ms of %.1f, %.2f moves a prefix", c.what, seed, held, distance, moves)
			}
		}
	}
}
