package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/admin"
	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
	"github.com/nearzone/nearzone/healthcheck"
	"github.com/nearzone/nearzone/localzone"
	"github.com/nearzone/nearzone/proxy"
	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
	"github.com/nearzone/nearzone/proxy/certs"
	"github.com/nearzone/nearzone/proxy/origin"
	"github.com/nearzone/nearzone/proxy/stream"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/dnsserver"
	"github.com/nearzone/nearzone/routing/geo"
	"github.com/nearzone/nearzone/routing/latency"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// node is one running nearzone: every room, joined here and nowhere else. Bytes flow through proxy, places through
// routing; what passes between the two trees passes through a func value given in newNode.
type node struct {
	log     *slog.Logger
	reg     *prometheus.Registry
	id      string // config.ZoneNode.ID of this node, by which its peers know it; the host name when zones do not list it
	name    string // for people: node.name, else id
	zone    string
	started time.Time
	load    func() (*config.Config, error) // reads the configuration again; nil when it cannot change
	config  atomic.Pointer[config.Config]

	metrics   *metrics
	access    *accessLog
	fleet     *fleet.Fleet
	checker   *healthcheck.Checker
	quorum    *healthcheck.Quorum
	health    *healthShare
	drained   *drainSet
	origins   *origin.Set
	cache     *cache.Cache
	certs     *certs.Certs // nil without listen.https
	proxy     *proxy.Proxy
	streams   *stream.Streams
	locator   atomic.Pointer[geo.Locator]
	zones     atomic.Pointer[[]routing.Zone]
	estimator *latency.Estimator
	prober    *latency.Prober
	router    *routing.Router
	dns       *dnsserver.Server // nil without dns.listen
	admin     *admin.Server     // nil with admin.listen: off
	identity  *localzone.Identity
	leaving   atomic.Bool
	reloading sync.Mutex // held while the configuration is read again and swapped
}

// nodeOptions is what a node needs beyond its configuration.
type nodeOptions struct {
	Log  *slog.Logger
	Load func() (*config.Config, error) // for reloads; nil: none
}

// newNode binds every listener of the configuration and joins the rooms. It starts nothing; on an error all that was
// bound is closed again.
func newNode(cfg *config.Config, o nodeOptions) (*node, error) {
	n := &node{log: o.Log, reg: prometheus.NewRegistry(), started: time.Now(), load: o.Load}
	n.identify(cfg)
	if err := os.MkdirAll(cfg.Node.Data, 0o750); err != nil {
		return nil, fmt.Errorf("node.data: %w; choose a directory that this user may write", err)
	}
	n.config.Store(cfg)
	n.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.metrics = newMetrics(n.reg)
	sockets := &binder{}
	for _, build := range []func(*config.Config, *binder) error{n.buildFleet, n.buildBytes, n.buildPlaces, n.buildDoors} {
		if err := build(cfg, sockets); err != nil {
			n.abandon(sockets)
			return nil, err
		}
	}
	return n, nil
}

// abandon closes what a node that will not run has opened. The fleet's listener is not among its sockets.
func (n *node) abandon(sockets *binder) {
	sockets.closeAll()
	if n.fleet != nil {
		n.fleet.Close()
	}
	if n.access != nil {
		n.access.close()
	}
}

// identify names the node: by its entry in zones for its peers, by node.name for people. A node that no zone lists is
// alone, in a zone called local.
func (n *node) identify(cfg *config.Config) {
	n.zone, n.name = cfg.Node.Zone, cfg.Node.Name
	if n.zone == "" || n.zone == "auto" {
		n.zone = "local"
	}
	if self := cfg.Self(); self != nil {
		n.id = self.ID()
	} else if host, err := os.Hostname(); err == nil {
		n.id = host
	} else {
		n.id = "local"
	}
	if n.name == "" || n.name == "auto" {
		n.name = n.id
	}
}

// buildFleet makes what nodes tell each other and what they think of each other.
func (n *node) buildFleet(cfg *config.Config, _ *binder) (err error) {
	hub, addrs := hubOf(cfg)
	n.fleet, err = fleet.Listen(fleet.Options{
		Config: cfg.Fleet, Node: n.id, Zone: n.zone,
		Hub: hub, Lone: cfg.Lone(), HubAddrs: addrs,
		Data: filepath.Join(cfg.Node.Data, "fleet"), Log: n.log, Reg: n.reg,
	})
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	n.quorum = healthcheck.NewQuorum(max(5*time.Second, 5*cfg.Health.Every), n.log)
	n.health = newHealthShare(n)
	n.checker = healthcheck.NewChecker(n.log, func(string, bool) { n.health.changed() })
	n.checker.Set(peerTargets(cfg))
	n.reg.MustRegister(n.checker.Collector("peers"), n.quorum.Collector())
	n.drained = newDrainSet()
	return nil
}

// buildBytes makes the tree that moves bytes.
func (n *node) buildBytes(cfg *config.Config, b *binder) (err error) {
	if n.access, err = openAccessLog(cfg.Log.Access); err != nil {
		return err
	}
	if n.origins, err = origin.New(cfg, origin.Deps{Zone: n.zone, Log: n.log, Reg: n.reg}); err != nil {
		return err
	}
	n.cache = cache.New(cache.Options{Store: store.New(memoryFor(cfg), n.reg), Node: "nearzone", Log: n.log, Reg: n.reg})
	if cfg.Listen.HTTPS != "" {
		if n.certs, err = certs.New(cfg, certs.Options{Log: n.log, Reg: n.reg}); err != nil {
			return err
		}
	}
	n.proxy, err = proxy.Listen(cfg, proxy.Deps{
		Zone: n.zone, Node: n.name, Cache: n.cache, Origins: n.origins, Certs: n.certs,
		Observe: n.observe, Beacon: n.beacon, Access: n.access,
		Listen: b.listen, Log: n.log, Reg: n.reg,
	})
	if err != nil {
		return explainBind(err)
	}
	n.streams, err = stream.Listen(cfg, stream.Deps{
		Origins: n.origins, Observe: n.observe, Listen: b.listen, ListenPacket: b.listenPacket, Log: n.log, Reg: n.reg,
	})
	return explainBind(err)
}

// buildPlaces makes the tree that decides places.
func (n *node) buildPlaces(cfg *config.Config, b *binder) error {
	if err := n.place(cfg); err != nil {
		return err
	}
	n.estimator = latency.New(n.zone, latency.Options{Node: n.id, Prior: n.prior, Log: n.log, Reg: n.reg})
	n.prober = latency.NewProber(n.estimator, latency.ProberOptions{Off: !probes(cfg), Log: n.log, Reg: n.reg})
	n.router = routing.NewRouter(cfg, routing.Sources{
		Zones: n.routingZones, Home: cfg.Home, Estimates: n.estimator.Estimates, Onward: n.quorum.Onward,
		Locate: n.locate, Up: n.quorum.Up, Drained: n.drained.has,
	}, routing.Options{Log: n.log, Reg: n.reg})
	if cfg.DNS.Listen == "" {
		return nil
	}
	var err error
	n.dns, err = dnsserver.Listen(cfg, dnsserver.Deps{
		Answer: n.router.Answer, Zones: n.routingZones, Listen: b.listen, ListenPacket: b.listenPacket, Log: n.log, Reg: n.reg,
	})
	return err
}

// buildDoors makes the operator's door and asks AWS who we are.
func (n *node) buildDoors(cfg *config.Config, b *binder) (err error) {
	// Who this is has been settled (whoAmI); what EC2 adds is shown in status, and its absence is no news.
	n.identity = localzone.NewIdentity(localzone.Options{Log: slog.New(slog.DiscardHandler)})
	if cfg.Admin.Listen != "" || cfg.Admin.Metrics.Listen != "" {
		n.admin, err = admin.Listen(cfg.Admin, n.hooks(), n.reg, admin.Options{Listen: b.listen, Log: n.log, Reg: n.reg})
	}
	return err
}

// Run serves until ctx ends and everything it started has ended, or until one part fails. The doors close first:
// requests that are under way still find cache, origins and fleet behind them.
func (n *node) Run(ctx context.Context) error {
	defer n.access.close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	inside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	behind := runAll(inside, n.behindDoors(), fail)
	doors := runAll(ctx, n.doors(), fail)
	doors.Wait()
	stop()
	behind.Wait()
	if failed := (*partError)(nil); errors.As(context.Cause(ctx), &failed) {
		return failed
	}
	return nil
}

type parts map[string]func(context.Context) error

// doors are the parts that clients come in by.
func (n *node) doors() parts {
	doors := parts{"proxy": n.proxy.Run, "streams": n.streams.Run}
	if n.dns != nil {
		doors["dns"] = n.dns.Run
	}
	return doors
}

// behindDoors are the parts that the doors need, and the operator's door: who watches a node leave wants to see all of it.
func (n *node) behindDoors() parts {
	rooms := parts{
		"fleet": n.fleet.Run, "health checks": n.checker.Run, "health views": n.health.Run, "origins": n.origins.Run,
		"cache": n.cache.Run, "router": n.router.Run, "estimates": n.shareEstimates, "probes": n.prober.Run,
		"purge log": n.followPurges, "drain log": n.followDrains, "identity": n.identity.Run,
	}
	if n.certs != nil {
		rooms["certificates"] = n.certs.Run
	}
	if n.admin != nil {
		rooms["admin"] = n.admin.Run
	}
	return rooms
}

// partError is why a node ended although nobody told it to.
type partError struct {
	part string
	err  error
}

func (e *partError) Error() string { return e.part + ": " + e.err.Error() }
func (e *partError) Unwrap() error { return e.err }

// runAll runs parts until ctx ends; the first that fails is told to fail.
func runAll(ctx context.Context, all parts, fail context.CancelCauseFunc) *sync.WaitGroup {
	var running sync.WaitGroup
	for name, part := range all {
		running.Go(func() {
			if err := part(ctx); err != nil && !errors.Is(err, context.Canceled) {
				fail(&partError{name, err})
			}
		})
	}
	return &running
}

func (n *node) routingZones() []routing.Zone { return *n.zones.Load() }
func (n *node) locate(client netip.Addr) (routing.Place, bool) {
	return n.locator.Load().Locate(client)
}
func (n *node) observe(client netip.Addr, rtt time.Duration) {
	n.estimator.Observe(client, rtt, routing.TCP)
}

// prior is what distance alone says of a client and a zone, in milliseconds.
func (n *node) prior(zone string, client netip.Addr) float64 {
	place, known := n.locate(client)
	for _, z := range n.routingZones() {
		if z.Name == zone {
			return routing.Prior(z, place, known)
		}
	}
	return routing.Prior(routing.Zone{Name: zone}, place, false)
}

// beacon takes a client's own report. Reports on another zone are not believed here: that zone measures for itself.
func (n *node) beacon(client netip.Addr, zone string, rtt time.Duration) error {
	if zone != n.zone {
		return fmt.Errorf("zone %q: this node takes reports on its own zone %q only", zone, n.zone)
	}
	n.estimator.Observe(client, rtt, routing.Beacon)
	return nil
}

// hubOf says whether this node is of the hub, and where the hub listens: the first three nodes of home where there are
// as many and they have a key, else the first one alone, for two could agree on nothing once one is away. The other
// nodes of home are leaves. fleet.hub, when given, is taken as it is.
func hubOf(cfg *config.Config) (hub bool, addrs []string) {
	addrs = cfg.HubAddrs()
	home, self := cfg.Zone(cfg.Home), cfg.Self()
	if len(cfg.Fleet.Hub) > 0 || home == nil || self == nil {
		return cfg.IsHub(), addrs
	}
	size := 1
	if len(home.Nodes) >= 3 && cfg.Fleet.Key.IsSet() {
		size = 3
	}
	size = min(size, len(addrs))
	for i := range size {
		hub = hub || &home.Nodes[i] == self
	}
	return hub || cfg.Lone(), addrs[:size]
}
