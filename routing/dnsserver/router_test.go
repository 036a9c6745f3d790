package dnsserver_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/dnsserver"
)

// The real router behind the real sockets: clients go to their nearest zone, and elsewhere once its node is down.
func TestWithRouter(t *testing.T) {
	cfg := world()
	cfg.DNS.Names = []config.Name{{Name: "play.edge.example.com", TTL: 20 * time.Second}, {Name: "*.play.edge.example.com", TTL: 20 * time.Second}}
	var laxDown atomic.Bool
	router := routing.NewRouter(cfg, routing.Sources{
		Home: "us-west-2",
		Zones: func() []routing.Zone {
			return []routing.Zone{
				{Name: "us-west-2", Region: true, At: config.LatLon{Lat: 45.8, Lon: -119.7}, Located: true, Nodes: pdx},
				{Name: "us-west-2-lax-1a", Parent: "us-west-2", At: config.LatLon{Lat: 34.05, Lon: -118.24}, Located: true, Nodes: lax},
			}
		},
		Locate: func(a netip.Addr) (routing.Place, bool) {
			p := prefix("192.0.2.0/24")
			return routing.Place{At: config.LatLon{Lat: 34, Lon: -118}, Prefix: p}, p.Contains(a)
		},
		Up: func(node string, _ []string) bool { return node != lax[0].ID || !laxDown.Load() },
	}, routing.Options{})
	r := start(t, cfg, dnsserver.Deps{Answer: router.Answer})

	near := func(name, subnet string) string {
		t.Helper()
		got := r.ask(t, "udp", question(name, dns.TypeA, subnet))
		if len(got.Answer) == 0 || scopeOf(got) < 1 {
			t.Fatalf("%s for %s:\n%v", name, subnet, got)
		}
		return got.Answer[0].(*dns.A).A.String()
	}
	for _, name := range []string{"play.edge.example.com.", "A.b.Play.edge.example.com."} {
		if got := near(name, "192.0.2.0/24"); got != "203.0.113.10" {
			t.Errorf("%s near lax: %s", name, got)
		}
		if got := near(name, "203.0.113.0/24"); got == "203.0.113.10" {
			t.Errorf("%s from nowhere: lax, want home", name)
		}
	}
	laxDown.Store(true)
	if got := near("play.edge.example.com.", "192.0.2.0/24"); got == "203.0.113.10" {
		t.Errorf("lax is named while it is down")
	}
}
