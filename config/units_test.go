package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
)

func TestUnits(t *testing.T) {
	times := map[string]time.Duration{
		"0": 0, "0s": 0, "500ms": 500 * time.Millisecond, "20s": 20 * time.Second, "1h30m": 90 * time.Minute,
		"1.5h": 90 * time.Minute, "1m500ms": time.Minute + 500*time.Millisecond, "365d": 365 * 24 * time.Hour, "1d12h": 36 * time.Hour,
	}
	for s, want := range times {
		c := parse(t, site("cache: {ttl: "+s+"}"), "")
		same(t, s, c.Sites[0].Routes[0].Cache.TTL, want)
	}
	sizes := map[string]config.Size{
		"1B": 1, "64KiB": 64 << 10, "64MiB": 64 << 20, "1.5GiB": 3 << 29, "2TiB": 2 << 40, "1kB": 1000, "1KB": 1000, "118MB": 118e6, "3GB": 3e9, "4TB": 4e12,
	}
	for s, want := range sizes {
		c := parse(t, site("max_body: "+s), "")
		same(t, s, c.Sites[0].Routes[0].MaxBody, want)
	}
	rates := map[string]config.Rate{"1bps": 1, "10kbps": 10e3, "800Mbps": 800e6, "5Gbps": 5e9, "2.5Gbps": 25e8, "1Tbps": 1e12}
	for s, want := range rates {
		c := parse(t, "zones: {us-west-2: {capacity: {bandwidth: "+s+"}}}\n", "")
		same(t, s, c.Zones[0].Capacity.Bandwidth, want)
	}
	for s, want := range map[string]config.Percent{"0%": 0, "1%": 0.01, "2.5%": 0.025, "100%": 1} {
		same(t, s, parse(t, "routing: {explore: "+s+"}\n", "").Routing.Explore, want)
	}
}

func site(keys string) string {
	return "origins: {a: {servers: [http://a.internal]}}\nsites: {s: {hosts: [\"*\"], origin: a, " + keys + "}}\n"
}

func TestBadUnits(t *testing.T) {
	for _, s := range []string{`""`, "5", "s", "-5s", "5 s", "5x", "1h5", "1.s", ".5s", "1..5s", "1e3s", "5S", "٣s", "9999999999d", "106000d1h"} {
		_, err := config.Parse("f", []byte(site("cache: {ttl: "+s+"}")), config.Options{})
		if err == nil || !strings.Contains(err.Error(), "want a time from 0s to 3650d, such as") {
			t.Errorf("ttl %s: got %v, want it refused", s, err)
		}
	}
	for _, s := range []string{"0B", "5", "MiB", "5mb", "5 MB", "-5MB", "9000000TiB", "5MiBs"} {
		_, err := config.Parse("f", []byte(site("max_body: "+s)), config.Options{})
		if err == nil || !strings.Contains(err.Error(), "want a size such as") {
			t.Errorf("max_body %s: got %v, want it refused", s, err)
		}
	}
}

func TestBalance(t *testing.T) {
	for s, want := range map[string]config.Balance{
		"least_requests":          {Policy: config.LeastRequests},
		"round_robin":             {Policy: config.RoundRobin},
		"hash(client)":            {Policy: config.PolicyHash, By: "client"},
		"hash(cookie:sid)":        {Policy: config.PolicyHash, By: "cookie", Key: "sid"},
		"hash(header:X-Match-Id)": {Policy: config.PolicyHash, By: "header", Key: "X-Match-Id"},
	} {
		c := parse(t, fmt.Sprintf("origins: {a: {servers: [http://a.internal], balance: %q}}\n", s), "")
		same(t, s, c.Origins[0].Balance, want)
	}
}

// A route overrides what it names and nothing else, off and on included.
func TestRoutesOverrideOneByOne(t *testing.T) {
	c := parse(t, `origins: {a: {servers: [http://a.internal]}, b: {servers: [http://b.internal]}}
sites:
  s:
    hosts: [s.example.com]
    origin: a
    strip: /v1
    max_body: 1MiB
    cache: off
    routes:
      - {path: /plain}
      - {path: /on, cache: on}
      - {path: /ttl, cache: {ttl: 5s}, origin: b}
      - {path: "/**", max_body: off}
`, "")
	base := config.Route{Path: "/**", Origin: "a", Strip: "/v1", MaxBody: 1 << 20, Cache: config.Cache{Off: true, MaxObject: 64 << 20}}
	plain, on, ttl, last := base, base, base, base
	plain.Path = "/plain"
	on.Path, on.Cache.Off = "/on", false
	ttl.Path, ttl.Origin, ttl.Cache = "/ttl", "b", config.Cache{TTL: 5 * time.Second, MaxObject: 64 << 20}
	last.MaxBody = 0
	same(t, "routes", c.Sites[0].Routes, []config.Route{plain, on, ttl, last})
	same(t, "measure", c.OriginsOf(config.Name{Site: "s"}), []string{"a", "b"})
}
