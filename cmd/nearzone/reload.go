package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/localzone"
	"github.com/nearzone/nearzone/routing/geo"
)

// Reload reads the configuration again and swaps every part at once, or none: all new values are built before the
// first is put in place. What cannot change while running is refused by name.
func (n *node) Reload() error {
	n.reloading.Lock() // SIGHUP, --watch and the admin door may ask at once
	defer n.reloading.Unlock()
	err := n.reload()
	n.metrics.reload(err)
	return err
}

func (n *node) reload() error {
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
	list := []reloader{n.reloadPlace, n.reloadProbes, n.origins.Reload}
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
	return append(list, n.reloadPeers, n.access.Reload) // the last opens a file: nothing after it can fail
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
		"node.zone":                        old.Node.Zone == cfg.Node.Zone,
		"node.data":                        old.Node.Data == cfg.Node.Data,
		"home":                             old.Home == cfg.Home,
		"fleet.listen":                     old.Fleet.Listen == cfg.Fleet.Listen,
		"fleet.hub (or the nodes of home)": slices.Equal(old.HubAddrs(), cfg.HubAddrs()),
		"fleet.key":                        old.Fleet.Key.Value() == cfg.Fleet.Key.Value(),
		"zones (from one node to several)": old.Lone() == cfg.Lone(),
		"dns.listen (added or removed)":    (old.DNS.Listen == "") == (cfg.DNS.Listen == ""),
		"listen.https (added or removed)":  (old.Listen.HTTPS == "") == (cfg.Listen.HTTPS == ""),
		"admin.listen":                     old.Admin.Listen == cfg.Admin.Listen,
		"admin.metrics.listen":             old.Admin.Metrics.Listen == cfg.Admin.Metrics.Listen,
		"store.memory":                     old.Store.Memory == cfg.Store.Memory,
		"health.every":                     old.Health.Every == cfg.Health.Every,
	} {
		if !same {
			return fmt.Errorf("%s: changed; a reload cannot change it, restart the node", key)
		}
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
