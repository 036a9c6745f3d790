// Package config turns one YAML file into one read-only [Config].
//
// It is strict: an unknown key, a duplicate, a bad value or a dangling reference is an error that names file,
// line, column, the key and what would be right, and all of them are reported at once. Loading touches no
// network. Everything a package needs to know about its own noun is one struct here, which its constructor
// takes as it is; [Default] is the only place with defaults.
//
//	cfg, err := config.Load("nearzone.yaml", config.Options{Zone: "us-west-2-lax-1a"})
package config

import (
	"net/netip"
	"time"
)

// Config is one whole configuration, resolved and checked. It is never changed after Load returns it.
//
// Mappings keyed by a name in YAML (zones, origins, sites, streams, dns.names) are slices here, in the order
// of the file, each element carrying its own Name.
type Config struct {
	Node    Node
	Home    string // the Region whose nodes are the hub; default: the first zone that is a Region, else empty
	Zones   []Zone
	Listen  Listen
	Origins []Origin
	Sites   []Site
	Streams []Stream
	Store   Store
	DNS     DNS
	Routing Routing
	Health  Health
	Drain   Drain
	TLS     TLS
	Fleet   Fleet
	Admin   Admin
	Log     Log

	// Hash identifies the configuration in `nearzone status`: the first 12 hex digits of the SHA-256 of the
	// file as read, before the environment is put in, so that it is the same on every node.
	Hash string
	// Warnings are findings that do not stop a start, each one sentence with its position.
	Warnings []string

	files []namedFile // for CheckFiles
}

// Node says who this process is.
type Node struct {
	Zone    string       // `auto` is resolved by cmd: NEARZONE_ZONE, else EC2 metadata
	Name    string       // for people, in logs, status and answers; `auto` is the node's address in zones, else the host name
	Address []netip.Addr // what DNS answers name for this node; empty (`auto`) is the node's entry in zones, or EC2 metadata
	Data    string       // directory for what must outlive the process; default /var/lib/nearzone
}

// Zone is a Local Zone, or a Region's own edge, and its nodes.
type Zone struct {
	Name        string
	Nodes       []ZoneNode
	Mode        Mode     // default serve
	Capacity    Capacity // zero means unknown
	Coordinates *LatLon  // only for zones the catalogue does not know
	Parent      string   // parent Region, only for zones the catalogue does not know
}

// ZoneNode is how the world reaches one node.
type ZoneNode struct {
	Addrs []netip.Addr // what DNS answers; at most one of each family
	Port  uint16       // the port its peers check and ask (`203.0.113.10:8080`); 0 is the port of listen.http, else of listen.https
}

// ID names the node in health views, status and drain: its first address, with the port when one was given.
func (n ZoneNode) ID() string {
	if len(n.Addrs) == 0 {
		return ""
	}
	if n.Port == 0 {
		return n.Addrs[0].String()
	}
	return netip.AddrPortFrom(n.Addrs[0], n.Port).String()
}

// LatLon is a place in degrees, `[34.05, -118.24]` in YAML.
type LatLon struct{ Lat, Lon float64 }

// Mode is what a zone does.
type Mode string

const (
	ModeServe  Mode = "serve"  // named in answers
	ModeShadow Mode = "shadow" // serves and measures, named in no answer
	ModeDrain  Mode = "drain"  // leaves the answers, serves those who are there
)

// Capacity of a zone as a whole.
type Capacity struct {
	Bandwidth Rate // 0 is unknown
	Sessions  int  // 0 is unknown
}

// Listen has the HTTP listeners. Empty addresses listen nowhere.
type Listen struct {
	HTTP  string // host:port, default :80; HTTP/1.1 (and h2c with prior knowledge)
	HTTPS string // host:port; HTTP/1.1 and HTTP/2
	Trust Trust
}

// Trust lists who may say the client's address.
type Trust struct {
	Proxies       []netip.Prefix // peers whose X-Forwarded-For is believed; their Forwarded is only passed on
	ProxyProtocol []netip.Prefix // peers that must open with a PROXY protocol header (v1 or v2)
}

// Origin is the servers that hold the truth for a site or a stream.
type Origin struct {
	Name     string
	Servers  []Server
	Check    Check
	Balance  Balance
	Host     string // `preserve` (default) sends the client's Host, otherwise this name
	TLS      OriginTLS
	Timeouts OriginTimeouts
	Retries  Retries
	Via      string // zone whose edge a miss asks first; empty: direct
}

// Server is one entry of origins.NAME.servers.
type Server struct {
	Scheme string // http, https, h2c (HTTP/2 without TLS), or empty for streams (`host:port`)
	Host   string // address or hostname, without port
	Port   uint16
	Zone   string // when servers are given by zone; empty otherwise
}

// Check is an origin's active health check. Exactly one of HTTP and TCP is set, or Off.
type Check struct {
	Off     bool
	HTTP    string // path asked with GET; 2xx and 3xx pass
	TCP     bool   // a connection is enough; the default for http(s) servers and tcp streams
	Every   time.Duration
	Timeout time.Duration
	Rise    int
	Fall    int
}

// Balance is how a pool orders its servers. `hash(cookie:NAME)`, `hash(header:NAME)` and `hash(client)` set By and Key.
type Balance struct {
	Policy BalancePolicy
	By     string // cookie, header or client, with PolicyHash
	Key    string // cookie or header name
}

// BalancePolicy names a balancing rule.
type BalancePolicy string

const (
	LeastRequests BalancePolicy = "least_requests" // default: power of two choices by requests under way
	RoundRobin    BalancePolicy = "round_robin"
	PolicyHash    BalancePolicy = "hash" // rendezvous
)

// OriginTLS is how https servers are spoken to. Load sets Verify unless the file says otherwise: the zero value takes
// any certificate.
type OriginTLS struct {
	ServerName string
	CA         string // PEM file of roots, instead of the system's
	Cert, Key  string // PEM files of our client certificate
	Verify     bool   // default true
}

// OriginTimeouts bound each phase of a request to an origin.
type OriginTimeouts struct {
	Connect   time.Duration // default 1s, TLS included
	FirstByte time.Duration // default 10s: from the request's last byte to the response's head
	Idle      time.Duration // default 60s: no byte of a body in either direction
}

// Retries of idempotent requests on another server.
type Retries struct {
	Max    int     // default 1
	Budget Percent // default 10 %: of requests in the last 10 s, at least 3 a second
}

// Site is one or more hostnames with their routes.
type Site struct {
	Name     string
	Hosts    []string      // lower case; `*` takes every Host, `*.example.com` one or more labels
	Reserved bool          // default true: /.nearzone/ is ours on these hosts
	Upgrade  time.Duration // default 1h: idle time of WebSocket and other upgraded connections
	Routes   []Route       // never empty: the last one has Path "/**" and the site's own values
}

// Route is a path pattern and the policy under it, the site's keys filled in.
type Route struct {
	Path    string // `*` is one segment, `**` any rest
	Origin  string
	Strip   string // prefix taken off the path before the origin sees it
	Cache   Cache
	MaxBody Size // default 0: no limit; larger request bodies get 413
}

// Cache is the caching policy of a route.
type Cache struct {
	Off                  bool
	TTL                  time.Duration // lifetime of a response that states none of its own; default 0: by the origin's headers alone
	StaleWhileRevalidate time.Duration // for responses that state none; default 0
	StaleIfError         time.Duration // for responses that state none; default 0
	MaxObject            Size          // larger bodies are not stored; default 64MiB
}

// Stream is one TCP or UDP listener relayed to an origin.
type Stream struct {
	Name          string
	Network       string // tcp or udp
	Listen        string // host:port
	Origin        string
	ProxyProtocol string // empty, v1 (tcp only) or v2
	Idle          StreamIdle
	MaxSessions   int // default 20000
}

// StreamIdle are the times after which a silent session ends.
type StreamIdle struct {
	Unreplied   time.Duration // default 30s: the server has not answered yet (udp)
	Established time.Duration // default 175s for udp, 1h for tcp
}

// Store is where cached objects live.
type Store struct {
	Memory Size // 0 (`auto`) is a quarter of the memory limit (cgroup, else machine)
}

// DNS is the authoritative server. Listen empty (`off`, the default): this process answers no DNS.
type DNS struct {
	Listen  string
	Domains []string // lower case, no trailing dot
	Servers []string // zones whose nodes are the name servers; default: home, else every zone
	Names   []Name   // steered names, site hosts under Domains included
	Records []Record
}

// Name is a hostname we answer for with zones.
type Name struct {
	Name    string // lower case, no trailing dot; may begin with `*.`
	Site    string // what it serves: exactly one of Site and Stream
	Stream  string
	Zones   []string // that it may use; never empty when there are zones (default: all)
	Measure Measure
	TTL     time.Duration // default 20s
	Steer   Steer         // default routing.steer
}

// Measure is what "nearest" means for a name.
type Measure string

const (
	MeasureZone     Measure = "zone"      // client to zone
	MeasureToOrigin Measure = "to_origin" // client to zone plus zone to origin
)

// Steer is how a name's zone is chosen.
type Steer string

const (
	SteerMeasured Steer = "measured" // default
	SteerDistance Steer = "distance" // the prior alone
)

// Record is a static record set. Name is absolute, lower case, without trailing dot.
type Record struct {
	Name   string
	Type   string        // A, AAAA, CNAME, TXT, MX, CAA, SRV, NS
	Values []string      // names in them are absolute and lower case; the root is `.`
	TTL    time.Duration // default 300s
}

// Routing is how samples become answers.
type Routing struct {
	Geo     []GeoSource
	Build   time.Duration // default 5s: how often the table is rebuilt
	Explore Percent       // default 1 %
	Probe   string        // icmp (default) or off
	Steer   Steer
}

// GeoSource says where prefixes are: exactly one of File (MMDB) and Prefix.
type GeoSource struct {
	File   string
	Prefix netip.Prefix
	At     LatLon
}

// Health is how nodes check each other.
type Health struct {
	Every   time.Duration // default 1s
	Timeout time.Duration // default 1s
	Rise    int           // default 2
	Fall    int           // default 3
}

// Drain is how long leaving takes at most.
type Drain struct {
	Answers time.Duration // default 40s: from the last answer that names us to the end of HTTP keep-alive; for nodes that DNS names
	HTTP    time.Duration // default 2m
	Streams time.Duration // default 45m
}

// TLS is where certificates come from. All empty with listen.https set is an error.
type TLS struct {
	Certificates []Certificate
	ACME         *ACME
	SelfSigned   bool // a certificate made at start, for trials
}

// Certificate is a pair of PEM files, reloaded on change.
type Certificate struct{ Cert, Key string }

// ACME orders certificates for the hosts of all sites.
type ACME struct {
	Email string
	CA    string // letsencrypt (default), letsencrypt-staging or a directory URL
	Roots string // PEM file of roots that the CA's own certificate chains to, instead of the system's
}

// Fleet is what nodes tell each other. Without Key, Load puts Listen on loopback (the node's own address when that is
// one, else 127.0.0.1) and only loopback hubs are dialled.
type Fleet struct {
	Listen string   // default :7422; only hub nodes listen
	Hub    []string // host:port of hub nodes; empty (`auto`): the nodes of home at Listen's port
	Key    Secret   // the shared secret that mTLS is derived from
}

// Secret is read from a file or the environment and never printed.
type Secret struct {
	File, Env string
	value     string
}

// Admin is the operator's door.
type Admin struct {
	Listen  string // default 127.0.0.1:9180; must be loopback; `off` is empty
	Metrics AdminMetrics
}

// AdminMetrics is a second listener with /metrics, /livez and /readyz alone. Empty Listen: none.
type AdminMetrics struct {
	Listen string
	From   []netip.Prefix // who may ask; default loopback and private addresses
}

// Log is what is written where.
type Log struct {
	Access string // stdout, stderr, off, or a file; default stdout
	Client string // full (default), prefix (/24, /48) or none
	Level  string // debug, info (default), warn, error
}

// Size is bytes: `64MiB`, `118MB`, `auto` where said.
type Size int64

// Rate is bits a second: `5Gbps`.
type Rate int64

// Percent is a share: `10%` is 0.1.
type Percent float64
