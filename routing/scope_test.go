package routing_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

func TestScope(t *testing.T) {
	measured := []string{"192.0.2.0/24", "192.0.3.0/24", "10.128.5.0/24", "2001:db8:1::/48"}
	for _, c := range []struct {
		what   string
		geo    []string
		client string
		want   string
	}{
		{"measured", nil, "192.0.2.7", "192.0.2.0/24"},
		{"measured IPv6", nil, "2001:db8:1:2::7", "2001:db8:1::/48"},
		{"measured, in a wide place", []string{"192.0.0.0/16"}, "192.0.2.7", "192.0.2.0/24"},
		{"no geography: as wide as allowed", nil, "172.16.0.1", "172.16.0.0/12"},
		{"no geography: beside measured prefixes", nil, "192.0.4.1", "192.0.4.0/22"},
		{"no geography: between measured prefixes", nil, "192.0.1.1", "192.0.0.0/23"},
		{"no geography: in the other half", nil, "192.8.0.1", "192.8.0.0/13"},
		{"no geography, IPv6", nil, "2001:db8:2::1", "2001:db8:2::/47"},
		{"no geography, other IPv6", nil, "2001:dead::1", "2001:de00::/24"},
		{"a place", []string{"10.0.0.0/13"}, "10.1.2.3", "10.0.0.0/13"},
		{"a place wider than allowed", []string{"172.0.0.0/8"}, "172.16.2.3", "172.16.0.0/12"},
		{"a place with a measured prefix inside", []string{"10.128.0.0/13"}, "10.128.4.1", "10.128.4.0/24"},
		{"a place narrower than what is measured", []string{"172.16.5.128/25"}, "172.16.5.200", "172.16.5.128/25"},
		{"a place within a place", []string{"172.16.0.0/13", "172.16.4.0/22"}, "172.16.1.1", "172.16.0.0/22"},
		{"beside all places", []string{"172.16.0.0/16"}, "172.17.1.1", "172.17.0.0/16"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t)
			for i, p := range c.geo {
				w.places[prefix(p)] = []config.LatLon{losAngeles, phoenix}[i]
			}
			for _, p := range measured {
				w.measure(p, lax, 9, 20)
			}
			w.start()
			if a := w.ask(c.client); a.Scope != prefix(c.want) {
				t.Errorf("scope for %s: %v, want %s", c.client, a.Scope, c.want)
			}
		})
	}
}

// A place that does not say how far it reaches is taken to reach no farther than what would be measured.
func TestScopeOfPlaceWithoutPrefix(t *testing.T) {
	w := newWorld(t)
	table := routing.Build(routing.Input{Config: w.cfg, Zones: w.zones, Home: home, Locate: func(netip.Addr) (routing.Place, bool) {
		return routing.Place{At: losAngeles}, true
	}}, nil, t0)
	if a, _ := table.Answer("play.example.com", addr(client), routing.Live{}, 1); a.Zone != lax || a.Scope != prefix(network) {
		t.Errorf("answer %+v, want %s for %s", a, lax, network)
	}
}

// In a random world, whoever is inside the scope of an answer gets that answer, and scopes of different answers do
// not overlap.
func TestScopesAreUniform(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		// All in 10.0.0.0/11, so that there is much to collide with.
		near := func() netip.Addr {
			return netip.AddrFrom4([4]byte{10, byte(rng.IntN(32)), byte(rng.IntN(4)) << 6, byte(rng.IntN(256))})
		}
		if seed%2 == 0 {
			for range 10 {
				p, _ := near().Prefix(12 + rng.IntN(14))
				w.places[p] = []config.LatLon{losAngeles, phoenix, oregon}[rng.IntN(3)]
			}
		}
		for range 30 {
			w.measure(routing.PrefixOf(near()).String(), []string{lax, phx, home}[rng.IntN(3)], 5+200*rng.Float64(), 20)
		}
		w.start()
		w.Rebuild()
		seen := map[netip.Prefix]string{}
		for range 300 {
			client := near()
			a, _ := w.Answer("play.example.com", client)
			if !a.Scope.Contains(client) || a.Scope.Bits() == 0 || a.Scope != a.Scope.Masked() {
				t.Fatalf("seed %d: scope %v for %v", seed, a.Scope, client)
			}
			for range 20 {
				other := inside(rng, a.Scope)
				b, _ := w.Answer("play.example.com", other)
				if b.Zone != a.Zone || b.Scope != a.Scope {
					t.Fatalf("seed %d: %v has %s for %v, but %v inside has %s for %v", seed, client, a.Zone, a.Scope, other, b.Zone, b.Scope)
				}
			}
			seen[a.Scope] = a.Zone
		}
		for p, x := range seen {
			for q, y := range seen {
				if p != q && p.Overlaps(q) {
					t.Fatalf("seed %d: scopes overlap: %v (%s) and %v (%s)", seed, p, x, q, y)
				}
			}
		}
	}
}

func inside(rng *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		if rng.IntN(2) == 1 {
			b[bit/8] |= 1 << (7 - bit%8)
		}
	}
	return netip.AddrFrom4(b)
}
