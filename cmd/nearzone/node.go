package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

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
)

// node is one running nearzone: every room, joined here and nowhere else. Bytes flow through proxy, places through
// routing; what passes between the two trees passes through a func value given in assemble.
type node struct {
	log     *slog.Logger
	reg     *prometheus.Registry
	id      string // config.ZoneNode.ID of this node, or its name when zones do not list it
	zone    string
	started time.Time
	load    func() (*config.Config, error) // reads the configuration again; nil when it cannot change
	config  atomic.Pointer[config.Config]

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
}

// nodeOptions is what a node needs beyond its configuration.
type nodeOptions struct {
	Log  *slog.Logger
	Load func() (*config.Config, error) // for reloads; nil: none
}

// newNode binds every listener of the configuration and joins the rooms. It starts nothing; on an error all that was
// bound is closed again.
func newNode(cfg *config.Config, o nodeOptions) (n *node, err error) {
	n = &node{log: o.Log, reg: prometheus.NewRegistry(), started: time.Now(), load: o.Load, zone: cfg.Node.Zone, id: cfg.Node.Name}
	if self := cfg.Self(); self != nil {
		n.id = self.ID()
	}
	n.config.Store(cfg)
	n.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	sockets := &binder{}
	defer func() {
		if err != nil {
			sockets.closeAll()
		}
	}()
	for _, build := range []func(*config.Config, *binder) error{n.buildFleet, n.buildBytes, n.buildPlaces, n.buildDoors} {
		if err = build(cfg, sockets); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// buildFleet makes what nodes tell each other and what they think of each other.
func (n *node) buildFleet(cfg *config.Config, _ *binder) (err error) {
	n.fleet, err = fleet.Listen(fleet.Options{
		Config: cfg.Fleet, Node: n.id, Zone: n.zone,
		Hub: cfg.IsHub(), Lone: cfg.Lone(), HubAddrs: cfg.HubAddrs(),
		Data: filepath.Join(cfg.Node.Data, "fleet"), Log: n.log, Reg: n.reg,
	})
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	n.quorum = healthcheck.NewQuorum(max(5*time.Second, 5*cfg.Health.Every), n.log)
	n.health = newHealthShare(n)
	n.checker = healthcheck.NewChecker(n.log, func(string, bool) { n.health.changed() })
	n.checker.Set(peerTargets(cfg))
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
		if n.certs, err = certs.New(cfg, certs.Options{Log: n.log}); err != nil {
			return err
		}
	}
	n.proxy, err = proxy.Listen(cfg, proxy.Deps{
		Zone: n.zone, Node: n.id, Cache: n.cache, Origins: n.origins, Certs: n.certs,
		Observe: n.observe, Beacon: n.beacon, Access: n.access,
		Listen: b.listen, Log: n.log, Reg: n.reg,
	})
	if err != nil {
		return err
	}
	n.streams, err = stream.Listen(cfg, stream.Deps{
		Origins: n.origins, Observe: n.observe, Listen: b.listen, ListenPacket: b.listenPacket, Log: n.log, Reg: n.reg,
	})
	return err
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
	n.identity = localzone.NewIdentity(localzone.Options{Log: n.log})
	if cfg.Admin.Listen != "" || cfg.Admin.Metrics.Listen != "" {
		n.admin, err = admin.Listen(cfg.Admin, n.hooks(), n.reg, admin.Options{Listen: b.listen, Log: n.log, Reg: n.reg})
	}
	return err
}

// Run serves until ctx ends and everything it started has ended, or until one part fails.
func (n *node) Run(ctx context.Context) error {
	defer n.access.close()
	g, ctx := errgroup.WithContext(ctx)
	parts := map[string]func(context.Context) error{
		"fleet": n.fleet.Run, "health checks": n.checker.Run, "health views": n.health.Run, "origins": n.origins.Run,
		"cache": n.cache.Run, "proxy": n.proxy.Run, "streams": n.streams.Run, "router": n.router.Run,
		"estimates": n.shareEstimates, "probes": n.prober.Run, "purge log": n.followPurges, "drain log": n.followDrains,
		"identity": n.identity.Run,
	}
	if n.certs != nil {
		parts["certificates"] = n.certs.Run
	}
	if n.dns != nil {
		parts["dns"] = n.dns.Run
	}
	if n.admin != nil {
		parts["admin"] = n.admin.Run
	}
	for name, part := range parts {
		g.Go(func() error {
			if err := part(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Reload reads the configuration again and swaps every part at once, or none: all new values are built before the
// first is put in place. What cannot change while running is refused by name.
func (n *node) Reload() error {
	if n.load == nil {
		return errors.New("this node has no configuration file to read again")
	}
	cfg, err := n.load()
	if err != nil {
		return err
	}
	old := n.config.Load()
	if err := unchangeable(old, cfg); err != nil {
		return err
	}
	var apply []func()
	for _, prepare := range n.reloaders() {
		swap, err := prepare(cfg)
		if err != nil {
			return err
		}
		apply = append(apply, swap)
	}
	for _, swap := range apply {
		swap()
	}
	n.config.Store(cfg)
	n.router.Rebuild()
	n.log.Info("configuration reloaded", "hash", cfg.Hash, "was", old.Hash)
	return nil
}

type reloader = func(*config.Config) (func(), error)

func (n *node) reloaders() []reloader {
	list := []reloader{n.reloadPlace, n.reloadProbes, n.access.Reload, n.origins.Reload}
	if n.certs != nil {
		list = append(list, n.certs.Reload)
	}
	list = append(list, n.proxy.Reload, n.streams.Reload, n.router.Reload)
	if n.dns != nil {
		list = append(list, n.dns.Reload)
	}
	if n.admin != nil {
		list = append(list, n.admin.Reload)
	}
	return append(list, n.reloadPeers)
}

func (n *node) reloadProbes(cfg *config.Config) (func(), error) {
	return func() { n.prober.Enable(probes(cfg)) }, nil
}

// probes reports whether there is another zone to be measured from here.
func probes(cfg *config.Config) bool { return cfg.Routing.Probe == "icmp" && len(cfg.Zones) > 1 }

func (n *node) reloadPeers(cfg *config.Config) (func(), error) {
	return func() { n.checker.Set(peerTargets(cfg)) }, nil
}

// unchangeable refuses what needs a restart.
func unchangeable(old, cfg *config.Config) error {
	for key, same := range map[string]bool{
		"node.zone":    old.Node.Zone == cfg.Node.Zone,
		"node.data":    old.Node.Data == cfg.Node.Data,
		"home":         old.Home == cfg.Home,
		"fleet.listen": old.Fleet.Listen == cfg.Fleet.Listen,
		"dns.listen":   old.DNS.Listen == cfg.DNS.Listen,
		"admin.listen": old.Admin.Listen == cfg.Admin.Listen,
		"store.memory": old.Store.Memory == cfg.Store.Memory,
	} {
		if !same {
			return fmt.Errorf("%s: changed; a reload cannot change it, restart the node", key)
		}
	}
	if (old.Listen.HTTPS == "") != (cfg.Listen.HTTPS == "") {
		return errors.New("listen.https: added or removed; a reload cannot change it, restart the node")
	}
	return nil
}

// place reads what is known of zones and networks.
func (n *node) place(cfg *config.Config) error {
	apply, err := n.reloadPlace(cfg)
	if err == nil {
		apply()
	}
	return err
}

func (n *node) reloadPlace(cfg *config.Config) (func(), error) {
	locator, err := geo.New(cfg.Routing.Geo, n.log)
	if err != nil {
		return nil, err
	}
	zones, warnings := localzone.Zones(cfg)
	return func() {
		for _, w := range append(cfg.Warnings, warnings...) {
			n.log.Warn("configuration", "warning", w)
		}
		n.locator.Store(locator)
		n.zones.Store(&zones)
	}, nil
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
