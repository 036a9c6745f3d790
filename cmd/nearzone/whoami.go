package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/localzone"
)

// place is where and who a node is.
type place struct {
	zone  string       // empty: as the file says
	addrs []netip.Addr // by which the world may know this machine; they choose the node's entry among several of a zone
}

// load reads the file as the node at this place sees it. A zone of several nodes must tell which of them this is.
func (p place) load(file string) (*config.Config, error) {
	cfg, err := config.Load(file, config.Options{Zone: p.zone})
	if err != nil {
		return nil, err
	}
	zone := cfg.Zone(cfg.Node.Zone)
	if zone == nil || len(zone.Nodes) == 0 || cfg.Self() != nil {
		return cfg, nil
	}
	for _, node := range zone.Nodes {
		for _, addr := range node.Addrs {
			if slices.Contains(p.addrs, addr) {
				cfg.Node.Address = []netip.Addr{addr}
				return cfg, nil
			}
		}
	}
	return nil, fmt.Errorf("%s: zones.%s lists %d nodes, and no address of this machine says which one it is; set node.address to its entry", file, zone.Name, len(zone.Nodes))
}

// whoAmI says where this node is: by the flag or NEARZONE_ZONE, by node.zone, by being in the only zone, by an address
// of this machine that the file lists, else by EC2 metadata. A file whose answer is in itself waits for nobody, so
// a start off EC2 is not delayed.
func whoAmI(ctx context.Context, file, zone string, log *slog.Logger) (place, error) {
	me := place{zone: localzone.ZoneOf(zone), addrs: machineAddrs()}
	cfg, err := config.Load(file, config.Options{Zone: me.zone})
	if err != nil {
		return place{}, err
	}
	if me.zone == "" && cfg.Node.Zone != "" && cfg.Node.Zone != "auto" {
		me.zone = localzone.ZoneOf(cfg.Node.Zone)
	}
	if me.zone == "" && len(cfg.Zones) == 1 {
		me.zone = cfg.Zones[0].Name
	}
	if me.zone == "" {
		me.zone = zoneByAddress(cfg, me.addrs)
	}
	if z := cfg.Zone(me.zone); len(cfg.Zones) == 0 || z != nil && (len(z.Nodes) <= 1 || zoneByAddress(cfg, me.addrs) != "") {
		return me, nil
	}
	if cfg.Self() != nil {
		return me, nil
	}
	return me.fromEC2(ctx, cfg, log)
}

// fromEC2 completes a place by EC2 metadata, for up to 5 s.
func (p place) fromEC2(ctx context.Context, cfg *config.Config, log *slog.Logger) (place, error) {
	log.Info("asking EC2 metadata for this node's zone and address")
	who, err := askEC2(ctx, log)
	for _, addr := range []netip.Addr{who.PublicV4, who.PrivateV4, who.V6} {
		if addr.IsValid() {
			p.addrs = append(p.addrs, addr)
		}
	}
	if p.zone != "" {
		return p, nil // the zone is known; load says what is missing of the address
	}
	if err != nil {
		return p, fmt.Errorf("node.zone: auto, but no address of this machine is listed in zones and EC2 metadata does not say (%w); set node.zone or NEARZONE_ZONE to one of %s", err, zoneNames(cfg))
	}
	p.zone = who.Zone
	return p, nil
}

func askEC2(ctx context.Context, log *slog.Logger) (localzone.Who, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	identity := localzone.NewIdentity(localzone.Options{Log: log})
	ended := make(chan error, 1)
	go func() { ended <- identity.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	select {
	case <-identity.Known():
		who, _ := identity.Get()
		return who, nil
	case <-ctx.Done():
		return localzone.Who{}, errors.Join(identity.Err(), ctx.Err())
	}
}

// machineAddrs are the addresses of this machine's interfaces, loopback aside.
func machineAddrs() (addrs []netip.Addr) {
	ours, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range ours {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && !prefix.Addr().IsLoopback() {
			addrs = append(addrs, prefix.Addr().Unmap())
		}
	}
	return addrs
}

// zoneByAddress is the zone that lists one of the addresses; empty when none does.
func zoneByAddress(cfg *config.Config, addrs []netip.Addr) string {
	for _, z := range cfg.Zones {
		for _, node := range z.Nodes {
			if slices.ContainsFunc(node.Addrs, func(a netip.Addr) bool { return slices.Contains(addrs, a) }) {
				return z.Name
			}
		}
	}
	return ""
}

func zoneNames(cfg *config.Config) string {
	var names []string
	for _, z := range cfg.Zones {
		names = append(names, z.Name)
	}
	return strings.Join(names, ", ")
}
