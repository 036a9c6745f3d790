package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/healthcheck"
)

const topicHealth = "health"

// healthShare publishes what this node sees of its peers and origins, at every round and at once when it changes,
// and takes in what the others see.
type healthShare struct {
	n    *node
	boot uint64
	seq  uint64
	wake chan struct{}
}

func newHealthShare(n *node) *healthShare {
	return &healthShare{n: n, boot: uint64(n.started.UnixNano()), wake: make(chan struct{}, 1)}
}

// changed asks for a view to be published now.
func (h *healthShare) changed() {
	select {
	case h.wake <- struct{}{}:
	default: // one is on its way already
	}
}

// Run publishes until ctx ends.
func (h *healthShare) Run(ctx context.Context) error {
	cancel := h.n.fleet.Subscribe(topicHealth, h.take)
	defer cancel()
	every := time.NewTicker(h.n.config.Load().Health.Every)
	defer every.Stop()
	for {
		h.publish()
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		case <-h.wake:
		}
	}
}

func (h *healthShare) take(data []byte) {
	view, err := healthcheck.DecodeView(data)
	if err != nil {
		h.n.log.Warn("health view refused", "err", err)
		return
	}
	if !h.n.knows(view.Node) {
		return // a node that zones no longer list has no vote
	}
	h.n.quorum.Observe(view, time.Now())
}

func (h *healthShare) publish() {
	h.seq++
	view := healthcheck.View{
		Node: h.n.id, Zone: h.n.zone, Boot: h.boot, Seq: h.seq,
		Peers: map[string]bool{}, Origins: h.n.origins.Reachable(), Onward: h.n.origins.Onward(),
		Draining: h.n.leaving.Load(),
	}
	for _, s := range h.n.checker.Status() {
		view.Peers[s.ID] = s.Up
	}
	h.n.quorum.Observe(view, time.Now())
	if err := h.n.fleet.Publish(topicHealth, view.Encode()); err != nil {
		h.n.log.Debug("health view not published", "err", err)
	}
}

// peerTargets are the health probes of every other node: its own answer at /.nearzone/health, over the clear
// listener, else the TLS one.
func peerTargets(cfg *config.Config) []healthcheck.Target {
	scheme := "http"
	if cfg.Listen.HTTP == "" && cfg.Listen.HTTPS != "" {
		scheme = "https"
	}
	var targets []healthcheck.Target
	for _, p := range cfg.Peers() {
		at := netip.AddrPortFrom(p.Addrs[0], cfg.CheckPort(p.ZoneNode))
		targets = append(targets, healthcheck.Target{
			ID: p.ID(), Every: cfg.Health.Every, Timeout: cfg.Health.Timeout, Rise: cfg.Health.Rise, Fall: cfg.Health.Fall,
			Probe: healthcheck.HTTP(scheme+"://"+at.String()+"/.nearzone/health", healthcheck.ProbeOptions{AnyCertificate: true}),
		})
	}
	return targets
}
