// Package latency turns round trips into what is known about prefixes.
//
// An [Estimator] takes samples of live connections, keeps a decayed mean for each prefix and zone, tells the fleet
// in digests and merges theirs; package routing reads the result and makes estimates of it by shrinking towards a
// prior. A [Prober] asks where the connections do not: it sends echo requests to prefixes that have traffic
// somewhere in the fleet and too few samples here.
//
// It chooses no zone (package routing does), moves no bytes between nodes (package fleet does) and reads no
// kernel's idea of a connection (package proxy/rtt does).
//
//	e := latency.New("us-west-2-lax-1a", latency.Options{Node: "a", Prior: prior})
//	e.Observe(client, 8*time.Millisecond, routing.TCP)
//	fleet.Publish("latency", e.Digest())
//	table := routing.Build(routing.Input{Estimates: e.Estimates()}, nil, time.Now())
package latency

import (
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/routing"
)

// MaxRTT is the longest round trip that is believed to be one. A probe or a beacon of more has been held up by
// something that is not the path.
const MaxRTT = 10 * time.Second

// maxZones bounds the zones one node reports about. It measures its own; others come from beacons.
const maxZones = 64

// beaconGap is the least time between two beacons that count for one prefix and zone. Clients can send as many as
// they like; this keeps one of them from outvoting the connections of its neighbours.
const beaconGap = time.Second

// ErrSample is returned for a sample that cannot be one.
var ErrSample = errors.New("not a round trip of a client")

// Options of an Estimator.
type Options struct {
	Node  string                                       // name of this node, unique in the fleet; default: the zone
	Prior func(zone string, client netip.Addr) float64 // ms before anything is measured; default: routing's for an unknown place
	// MaxPrefixes bounds what is measured here, in pairs of prefix and zone. Default 65536, which is 10 MB; four
	// times as many are kept of the rest of the fleet.
	MaxPrefixes int
	Now         func() time.Time // default time.Now
	Log         *slog.Logger     // default: discards
	Reg         prometheus.Registerer
}

const defaultPrefixes = 1 << 16

// Estimator keeps what this node measured and what the fleet told it. All methods are safe for concurrent use.
type Estimator struct {
	zone  string
	node  string
	epoch uint64 // of this run of the node: what it measured before is another snapshot
	prior func(zone string, client netip.Addr) float64
	now   func() time.Time
	log   *slog.Logger
	m     *metrics

	seed   maphash.Seed             // spreads keys over shards
	zones  atomic.Pointer[[]string] // observed here; index 0 is zone
	adding sync.Mutex               // held to lengthen zones
	shards [numShards]shard
	peers  peers
	out    outbox
}

// New makes an Estimator for the node's own zone.
func New(zone string, o Options) *Estimator {
	e := &Estimator{zone: zone, node: o.Node, prior: o.Prior, now: o.Now, log: o.Log, m: newMetrics(o.Reg), seed: maphash.MakeSeed()}
	if e.node == "" {
		e.node = zone
	}
	if !validName(e.node) { // it only has to be the same at each start
		e.node = fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(e.node)))
	}
	if e.prior == nil {
		e.prior = func(string, netip.Addr) float64 { return routing.Prior(routing.Zone{}, routing.Place{}, false) }
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if o.MaxPrefixes <= 0 {
		o.MaxPrefixes = defaultPrefixes
	}
	e.epoch = uint64(e.now().UnixNano())
	e.zones.Store(&[]string{zone})
	for i := range e.shards {
		e.shards[i].cells = map[key]*cell{}
		e.shards[i].max = max(1, o.MaxPrefixes/numShards)
	}
	e.peers = peers{max: 4 * o.MaxPrefixes, snapshots: map[origin]*snapshot{}}
	return e
}

// Observe takes a sample of this node's own zone. It drops what cannot be a sample, and counts it.
func (e *Estimator) Observe(client netip.Addr, rtt time.Duration, src routing.Source) {
	e.observe(0, client, rtt, src)
}

// ObserveAt takes a sample of any zone, as beacons carry them. The caller vouches for the zone's name.
func (e *Estimator) ObserveAt(zone string, client netip.Addr, rtt time.Duration, src routing.Source) error {
	z, err := e.zoneIndex(zone)
	if err != nil {
		e.m.rejected.Inc()
		return fmt.Errorf("observe zone %q: %w", zone, err)
	}
	if !e.observe(z, client, rtt, src) {
		return fmt.Errorf("observe %v from %v: %w", rtt, client, ErrSample)
	}
	return nil
}

func (e *Estimator) zoneIndex(zone string) (uint8, error) {
	if z, ok := indexOf(*e.zones.Load(), zone); ok {
		return z, nil
	}
	if !validName(zone) {
		return 0, errName
	}
	e.adding.Lock()
	defer e.adding.Unlock()
	zones := *e.zones.Load()
	if z, ok := indexOf(zones, zone); ok {
		return z, nil
	}
	if len(zones) == maxZones {
		return 0, fmt.Errorf("already observing %d zones", maxZones)
	}
	longer := append(zones[:len(zones):len(zones)], zone)
	e.zones.Store(&longer)
	return uint8(len(zones)), nil
}

func indexOf(zones []string, zone string) (uint8, bool) {
	for i, z := range zones {
		if z == zone {
			return uint8(i), true
		}
	}
	return 0, false
}

func (e *Estimator) observe(zone uint8, client netip.Addr, rtt time.Duration, src routing.Source) bool {
	client = client.Unmap().WithZone("")
	if !isClient(client) || rtt <= 0 || rtt > MaxRTT {
		e.m.rejected.Inc()
		return false
	}
	k := key{prefix: routing.PrefixOf(client), zone: zone}
	sh := &e.shards[k.shard(e.seed)]
	now := e.now()
	if !sh.add(k, client, rtt, src, now, nil) {
		// The prior may have to look into a geography file: not under the lock, and only for new prefixes.
		prior := e.prior((*e.zones.Load())[zone], k.prefix.Addr())
		sh.add(k, client, rtt, src, now, &prior)
	}
	e.m.sample(src)
	return true
}

func isClient(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// Estimates is all that is known, measured here or merged, with what has become too old left out.
func (e *Estimator) Estimates() []routing.PrefixEstimate {
	now := e.now()
	sum := summary{}
	zones := *e.zones.Load()
	own := 0
	for i := range e.shards {
		own += e.shards[i].each(now, func(k key, c *cell) {
			sum.add(k.prefix, zones[k.zone], c.mean, c.weight(now))
		})
	}
	merged := e.peers.each(now, func(prefix netip.Prefix, zone string, r remote) {
		sum.add(prefix, zone, r.mean, r.weight(now))
	})
	e.m.own.Set(float64(own))
	e.m.merged.Set(float64(merged))
	return sum.list()
}

// maxSummed zones of one prefix are added up: more than AWS has. Peers could name any number, and each is looked for
// among the others.
const maxSummed = 128

// summary adds up the means of several nodes for each prefix and zone.
type summary map[netip.Prefix][]routing.Measured

func (s summary) add(prefix netip.Prefix, zone string, mean, n float64) {
	list := s[prefix]
	for i := range list {
		if m := &list[i]; m.Zone == zone {
			m.Mean = (m.Mean*m.N + mean*n) / (m.N + n)
			m.N += n
			return
		}
	}
	if len(list) < maxSummed {
		s[prefix] = append(list, routing.Measured{Zone: zone, Mean: mean, N: n})
	}
}

func (s summary) list() []routing.PrefixEstimate {
	list := make([]routing.PrefixEstimate, 0, len(s))
	for prefix, zones := range s {
		for i := range zones {
			zones[i].N = min(zones[i].N, maxN)
		}
		list = append(list, routing.PrefixEstimate{Prefix: prefix, Zones: zones})
	}
	return list
}
