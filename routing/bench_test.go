package routing_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

// crowd is a table of many measured prefixes and zones.
func crowd(prefixes, zones int) (routing.Input, []netip.Addr) {
	rng := rand.New(rand.NewPCG(1, 2))
	in := routing.Input{Home: home, Config: &config.Config{DNS: config.DNS{Names: []config.Name{name("play.example.com")}}}}
	for i := range zones {
		z := zone(fmt.Sprintf("zone-2-%02d", i), config.LatLon{Lat: 25 + 25*rng.Float64(), Lon: -125 + 50*rng.Float64()}, fmt.Sprintf("203.0.113.%d", i))
		in.Zones = append(in.Zones, z)
	}
	in.Locate = func(a netip.Addr) (routing.Place, bool) {
		b := a.As4()
		p, _ := a.Prefix(20)
		return routing.Place{At: config.LatLon{Lat: 25 + float64(b[1])/10, Lon: -125 + float64(b[2])/5}, Prefix: p}, true
	}
	var clients []netip.Addr
	for i := range prefixes {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 7})
		e := routing.PrefixEstimate{Prefix: routing.PrefixOf(a)}
		for range 3 {
			e.Zones = append(e.Zones, routing.Measured{Zone: in.Zones[rng.IntN(zones)].Name, Mean: 5 + 60*rng.Float64(), N: 1 + 19*rng.Float64()})
		}
		in.Estimates = append(in.Estimates, e)
		clients = append(clients, a)
	}
	return in, clients
}

func BenchmarkAnswer(b *testing.B) {
	up := func(string, []string) bool { return true }
	for _, c := range []struct {
		what     string
		prefixes int
		shift    byte // moves clients off the measured prefixes
	}{{"measured", 10000, 0}, {"unmeasured", 10000, 1}} {
		b.Run(c.what, func(b *testing.B) {
			in, clients := crowd(c.prefixes, 12)
			r := routing.NewRouter(in.Config, routing.Sources{
				Zones: func() []routing.Zone { return in.Zones }, Home: home, Locate: in.Locate, Up: up,
				Estimates: func() []routing.PrefixEstimate { return in.Estimates },
				Drained:   func(string, string) bool { return false },
			}, routing.Options{})
			for i, a := range clients {
				v := a.As4()
				v[0] += c.shift
				clients[i] = netip.AddrFrom4(v)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if a, ok := r.Answer("play.example.com", clients[i%len(clients)]); !ok || a.Zone == "" {
					b.Fatal("no answer")
				}
				i++
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	in, _ := crowd(20000, 12)
	var table *routing.Table
	b.ReportAllocs()
	for b.Loop() {
		table = routing.Build(in, table, t0)
	}
}

// The promise of the benchmark, where tests can see it.
func TestAnswerDoesNotAllocate(t *testing.T) {
	in, clients := crowd(100, 12)
	table := routing.Build(in, nil, t0)
	live := routing.Live{Up: func(string, []string) bool { return true }, Drained: func(string, string) bool { return false }}
	for _, client := range []netip.Addr{clients[0], addr("11.1.1.1")} {
		if n := testing.AllocsPerRun(100, func() { table.Answer("play.example.com", client, live, 1) }); n > 0 {
			t.Errorf("Answer(%v) makes %v allocations, want none", client, n)
		}
	}
}

// Questions, builds, reloads and changes of health at once; the race detector is the judge.
func TestConcurrentUse(t *testing.T) {
	w := newWorld(t)
	w.places[prefix(network)] = losAngeles
	w.cfg.Routing.Explore = 0.5
	w.measure(network, lax, 9, 20)
	w.start()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				client := netip.AddrFrom4([4]byte{192, 0, byte(i), 7})
				if a, ok := w.Answer("play.example.com", client); !ok || len(a.Nodes) == 0 {
					t.Errorf("answer to %v: %+v", client, a)
				}
				if _, err := w.Explain("", client); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 50 {
		w.set(i%2 == 0, lax, phx, home)
		w.Rebuild()
		apply, err := w.Reload(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		apply()
	}
	wg.Wait()
}
