package config

import (
	"net/netip"
	"time"
)

// auto stands where the node finds out by itself.
const auto = "auto"

// Default is the configuration of an empty file: no zone, no origin, no site.
func Default() *Config {
	return &Config{
		Node:    Node{Zone: auto, Name: auto, Data: "/var/lib/nearzone"},
		Listen:  Listen{HTTP: ":80"},
		Routing: Routing{Build: 5 * time.Second, Explore: 0.01, Probe: "icmp", Steer: SteerMeasured},
		Health:  Health{Every: time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
		Drain:   Drain{Answers: 40 * time.Second, HTTP: 2 * time.Minute, Streams: 45 * time.Minute},
		Fleet:   Fleet{Listen: ":7422"},
		Admin:   Admin{Listen: "127.0.0.1:9180", Metrics: AdminMetrics{From: privateNetworks()}},
		Log:     Log{Access: "stdout", Client: "full", Level: "info"},
	}
}

func defaultZone(name string) Zone { return Zone{Name: name, Mode: ModeServe} }

func defaultOrigin(name string) Origin {
	return Origin{
		Name:     name,
		Check:    Check{Every: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
		Balance:  Balance{Policy: LeastRequests},
		Host:     "preserve",
		TLS:      OriginTLS{Verify: true},
		Timeouts: OriginTimeouts{Connect: time.Second, FirstByte: 10 * time.Second, Idle: time.Minute},
		Retries:  Retries{Max: 1, Budget: 0.1},
	}
}

func defaultSite(name string) Site { return Site{Name: name, Reserved: true, Upgrade: time.Hour} }

func defaultRoute() Route { return Route{Path: everyPath, Cache: Cache{MaxObject: 64 << 20}} }

func defaultStream(name string) Stream {
	return Stream{Name: name, Idle: StreamIdle{Unreplied: 30 * time.Second}, MaxSessions: 20000}
}

// establishedIdle is the default of streams.NAME.idle.established. For udp it is under the 180 s of the shortest
// NAT in front of servers (notes: AWS NAT gateway 350 s, Linux conntrack 180 s), for tcp what an idle game lobby needs.
func establishedIdle(network string) time.Duration {
	if network == "udp" {
		return 175 * time.Second
	}
	return time.Hour
}

func defaultName(name string) Name { return Name{Name: name, TTL: 20 * time.Second} }

// staticTTL is the default lifetime of dns.records.
const staticTTL = 5 * time.Minute

func defaultACME() ACME { return ACME{CA: "letsencrypt"} }

// privateNetworks are loopback and what RFC 1918 and RFC 4193 set apart.
func privateNetworks() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
