package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T, file, zone string) *config.Config {
	t.Helper()
	c, err := config.Load("testdata/good/"+file, config.Options{Zone: zone, Env: environment})
	if err != nil {
		t.Fatalf("load %s: %v", file, err)
	}
	return c
}

func parse(t *testing.T, yaml, zone string) *config.Config {
	t.Helper()
	c, err := config.Parse("f", []byte(yaml), config.Options{Zone: zone, Env: environment})
	if err != nil {
		t.Fatalf("parse:\n%s\n%v", yaml, err)
	}
	return c
}

// same fails unless got is want.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestGoodFilesLoadForEveryZone(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	for _, file := range files {
		for _, zone := range []string{"", "us-west-2", "us-west-2-lax-1a"} {
			c := load(t, filepath.Base(file), "")
			if zone != "" && c.Zone(zone) != nil {
				load(t, filepath.Base(file), zone)
			}
		}
	}
}

func TestQuickstart(t *testing.T) {
	c := load(t, "quickstart.yaml", "")
	same(t, "listen", c.Listen, config.Listen{HTTP: "127.0.0.1:8080"})
	same(t, "servers", c.Origins[0].Servers, []config.Server{{Scheme: "http", Host: "127.0.0.1", Port: 3000}})
	same(t, "check", c.Origins[0].Check, config.Check{TCP: true, Every: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3})
	same(t, "routes", c.Sites[0].Routes, []config.Route{{Path: "/**", Origin: "app", Cache: config.Cache{MaxObject: 64 << 20}}})
	same(t, "warnings", len(c.Warnings), 0)
	same(t, "zone", c.Node.Zone, "auto")
	same(t, "lone", c.Lone(), true)
	same(t, "hub", c.IsHub(), true)
	same(t, "fleet", c.Fleet.Listen, "127.0.0.1:7422")
}

func TestHashIsOfTheFileAsRead(t *testing.T) {
	const yaml = "log: {level: info}\n"
	same(t, "hash", parse(t, yaml, "").Hash, "b6dc6131acf3")
	same(t, "hash", parse(t, yaml, "us-west-2").Hash, "b6dc6131acf3")
}

func TestDesignExample(t *testing.T) {
	c := load(t, "design.yaml", "us-west-2-phx-2a")
	same(t, "node.zone", c.Node.Zone, "us-west-2-phx-2a")
	same(t, "zones[1]", c.Zones[1], config.Zone{
		Name: "us-west-2-lax-1a", Mode: config.ModeServe,
		Nodes:    []config.ZoneNode{{Addrs: addrs("203.0.113.10", "2001:db8:a::10")}, {Addrs: addrs("203.0.113.11")}},
		Capacity: config.Capacity{Bandwidth: 5e9, Sessions: 20000},
	})
	same(t, "mode", c.Zones[2].Mode, config.ModeShadow)
	same(t, "memory", c.Store.Memory, config.Size(100<<30))
	play := c.Site("play").Routes
	same(t, "routes", len(play), 3)
	same(t, "api", play[0].Cache, config.Cache{Off: true, StaleWhileRevalidate: 30 * time.Second, StaleIfError: time.Hour, MaxObject: 64 << 20})
	same(t, "patches", play[1], config.Route{
		Path: "/patches/**", Origin: "patches", Strip: "/patches",
		Cache: config.Cache{TTL: 365 * 24 * time.Hour, StaleWhileRevalidate: 30 * time.Second, StaleIfError: time.Hour, MaxObject: 64 << 20},
	})
	same(t, "rest", play[2].Path+" "+play[2].Origin, "/** app")
	same(t, "arena check", c.Origin("arena").Check.Off, true)
	same(t, "names", c.DNS.Names, []config.Name{{
		Name: "match.edge.example.com", Stream: "match", Zones: []string{"us-west-2", "us-west-2-lax-1a"},
		Measure: config.MeasureToOrigin, TTL: 20 * time.Second, Steer: config.SteerMeasured,
	}})
	same(t, "records", c.DNS.Records, []config.Record{{
		Name: "edge.example.com", Type: "CAA", Values: []string{`0 issue "letsencrypt.org"`}, TTL: 5 * time.Minute,
	}})
	same(t, "metrics", c.Admin.Metrics, config.AdminMetrics{Listen: ":9181", From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}})
	same(t, "warnings", c.Warnings, []string{
		"testdata/good/design.yaml:38:7: tls.acme: *.play.example.com gets no certificate: a wildcard needs DNS-01, which is not in this version",
		"testdata/good/design.yaml:39:1: fleet.key: is not set: the fleet stays on loopback, and nodes on other machines, such as 198.51.100.5 in us-west-2, cannot join: want fleet: {key: {file: FILE}}, the same file of at least 16 characters on every node",
	})
}

func TestOverlay(t *testing.T) {
	plain, lax, phx := load(t, "overlay.yaml", ""), load(t, "overlay.yaml", "us-west-2-lax-1a"), load(t, "overlay.yaml", "us-west-2-phx-2a")

	same(t, "hosts", plain.Sites[0].Hosts, []string{"app.example.com", "*.example.com"})
	same(t, "level", plain.Log.Level, "debug")
	same(t, "max_body", plain.Sites[0].Routes[2].MaxBody, config.Size(10e6))
	same(t, "max_body off", plain.Sites[0].Routes[0].MaxBody, config.Size(0))
	same(t, "live", plain.Sites[0].Routes[1].Cache, config.Cache{TTL: time.Second, StaleIfError: time.Hour, MaxObject: 64 << 20})

	same(t, "memory", lax.Store.Memory, config.Size(2<<30))
	same(t, "check", lax.Origin("app").Check.HTTP+" "+lax.Origin("app").Servers[0].Host, " 127.0.0.9")
	same(t, "origins", []string{lax.Origins[0].Name, lax.Origins[1].Name}, []string{"app", "spare"})
	same(t, "routes", lax.Sites[0].Routes, []config.Route{
		{Path: "/spare/*", Origin: "spare", MaxBody: 10e6, Cache: config.Cache{TTL: 5 * time.Second, StaleIfError: time.Hour, MaxObject: 64 << 20}},
		{Path: "/**", Origin: "app", MaxBody: 10e6, Cache: config.Cache{TTL: 5 * time.Second, StaleIfError: time.Hour, MaxObject: 64 << 20}},
	})

	same(t, "log", phx.Log.Level, "info")
	same(t, "cache", phx.Sites[0].Routes[2].Cache.Off, true)
	same(t, "live in phx", phx.Sites[0].Routes[1].Cache.Off, false)
}

func TestDNS(t *testing.T) {
	c := load(t, "dns.yaml", "us-west-2")
	same(t, "home", c.Home, "us-west-2")
	same(t, "domains", c.DNS.Domains, []string{"edge.example.com", "example.net"})
	same(t, "servers", c.DNS.Servers, []string{"us-west-2"})
	both := []string{"us-west-2-lax-1a", "us-west-2"}
	const ttl = 20 * time.Second
	same(t, "names", c.DNS.Names, []config.Name{
		{Name: "match.edge.example.com", Stream: "match", Zones: []string{"us-west-2"}, Measure: config.MeasureToOrigin, TTL: 5 * time.Second, Steer: config.SteerMeasured},
		{Name: "api.edge.example.com", Site: "api", Zones: both, Measure: config.MeasureZone, TTL: ttl, Steer: config.SteerDistance},
		{Name: "www.example.net", Site: "play", Zones: both, Measure: config.MeasureZone, TTL: ttl, Steer: config.SteerMeasured},
		{Name: "play.edge.example.com", Site: "play", Zones: both, Measure: config.MeasureZone, TTL: ttl, Steer: config.SteerMeasured},
		{Name: "*.play.edge.example.com", Site: "play", Zones: both, Measure: config.MeasureZone, TTL: ttl, Steer: config.SteerMeasured},
		{Name: "half.edge.example.com", Site: "half", Zones: both, Measure: config.MeasureZone, TTL: ttl, Steer: config.SteerMeasured},
	})
	var records []string
	for _, r := range c.DNS.Records {
		records = append(records, r.Name+" "+r.TTL.String()+" "+r.Type+" "+strings.Join(r.Values, ", "))
	}
	same(t, "records", records, []string{
		`edge.example.com 5m0s CAA 0 issue "letsencrypt.org"`,
		"edge.example.com 5m0s TXT v=spf1 -all",
		"*.lab.edge.example.com 1m0s A 192.0.2.1, 192.0.2.2",
		"*.lab.edge.example.com 5m0s AAAA 2001:db8::1",
		"mail.example.net 5m0s MX 10 mx.example.org, 20 mx2.example.org",
		"mail.example.net 5m0s SRV 0 5 5060 .",
		"cdn.edge.example.com 5m0s CNAME play.edge.example.com",
	})
	same(t, "origins of match", c.OriginsOf(*c.Name("match.edge.example.com")), []string{"arena"})
}

func TestOriginsAndStreams(t *testing.T) {
	c := load(t, "dns.yaml", "us-west-2")
	same(t, "servers", c.Origin("app").Servers, []config.Server{
		{Scheme: "http", Host: "10.0.1.20", Port: 80}, {Scheme: "h2c", Host: "app.internal", Port: 8080}, {Scheme: "https", Host: "2001:db8::1", Port: 443},
	})
	same(t, "balance", c.Origin("app").Balance, config.Balance{Policy: config.PolicyHash, By: "cookie", Key: "Session"})
	same(t, "by zone", c.Origin("arena").Servers, []config.Server{
		{Host: "10.0.2.10", Port: 7777, Zone: "us-west-2"},
		{Host: "10.0.9.10", Port: 7777, Zone: "us-west-2-lax-1a"},
		{Host: "arena.lax.internal", Port: 7777, Zone: "us-west-2-lax-1a"},
	})
	same(t, "streams", c.Streams, []config.Stream{
		{Name: "match", Network: "udp", Listen: ":7777", Origin: "arena", MaxSessions: 20000, Idle: config.StreamIdle{Unreplied: 30 * time.Second, Established: 175 * time.Second}},
		{Name: "lobby", Network: "tcp", Listen: "127.0.0.1:7780", Origin: "lobby", ProxyProtocol: "v1", MaxSessions: 20000, Idle: config.StreamIdle{Unreplied: 30 * time.Second, Established: 10 * time.Minute}},
	})
	same(t, "udp check", c.Origin("arena").Check.Off, true)
	same(t, "no check", c.Origin("lobby").Check, config.Check{Off: true})
	same(t, "geo", c.Routing.Geo, []config.GeoSource{
		{File: "/var/lib/geo.mmdb"}, {File: "other.mmdb"}, {Prefix: netip.MustParsePrefix("198.51.100.0/24"), At: config.LatLon{Lat: 34.05, Lon: -118.24}},
	})
	same(t, "explicit catch-all", len(c.Site("half").Routes), 2)
	same(t, "fleet", c.Fleet.Listen, ":7422")
	same(t, "key", c.Fleet.Key.Value(), "0123456789abcdef0123456789abcdef")
}

func TestEnvironment(t *testing.T) {
	c := load(t, "environment.yaml", "")
	same(t, "node", c.Node, config.Node{Zone: "auto", Name: "edge-1", Data: "/var/play.example.com/$x"})
	same(t, "http", c.Listen.HTTP, ":8080")
	same(t, "rise", c.Health.Rise, 4)
	same(t, "log", c.Log, config.Log{Access: "/tmp/a", Client: "prefix", Level: "info"})
	same(t, "alias", c.Origins[1].Servers, []config.Server{{Scheme: "http", Host: "play.example.com", Port: 8080}})
	same(t, "reserved", c.Sites[0].Reserved, false)

	c = parse(t, "node: {data: \"${DOLLAR}\"}\n", "")
	same(t, "what is put in is not looked at again", c.Node.Data, "$PORT ${PORT}")
}

func TestSecretsAreNeverShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("\n  0123456789abcdefHIDDEN \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := parse(t, "fleet: {key: {file: "+file+"}}\n", "")
	same(t, "value", c.Fleet.Key.Value(), "0123456789abcdefHIDDEN")
	assertHidden(t, c)
	assertHidden(t, c.Fleet.Key)
	assertHidden(t, &c.Fleet)
}

func TestWarnings(t *testing.T) {
	c := parse(t, `zones:
  us-west-2: {nodes: [198.51.100.5, 198.51.100.6]}
origins:
  app: {servers: ["https://10.0.1.20"], tls: {verify: false}}
  old: {servers: ["http://10.0.1.21"]}
sites:
  all: {hosts: ["*", "*.example.com", a.edge.example.com, 192.0.2.1], origin: app}
tls: {acme: {}}
dns:
  domains: [edge.example.com]
  records: {"@": {MX: ["10 mail.example.com"]}}
fleet: {listen: "0.0.0.0:7422"}
`, "us-west-2")
	same(t, "warnings", c.Warnings, []string{
		"f:4:55: origins.app.tls.verify: servers are not verified: anyone on the way can read and change what they send",
		"f:5:3: origins.old: no site and no stream uses it",
		"f:8:7: tls.acme: *.example.com gets no certificate: a wildcard needs DNS-01, which is not in this version",
		"f:8:7: tls.acme: 192.0.2.1 gets no certificate: it is an address",
		"f:9:1: dns: listen is not set: nobody answers for edge.example.com",
		"f:11:19: dns.records.@.MX: edge.example.com has mail on it: a domain delegated to us should not be one that mail is sent to",
		"f:12:1: fleet.key: is not set: the fleet stays on loopback, and nodes on other machines, such as 198.51.100.5 in us-west-2, cannot join: want fleet: {key: {file: FILE}}, the same file of at least 16 characters on every node",
		"f:12:17: fleet.listen: without fleet.key the fleet listens on loopback only",
	})
	same(t, "acme", *c.TLS.ACME, config.ACME{CA: "letsencrypt"})
}
