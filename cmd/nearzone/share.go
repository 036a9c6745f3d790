package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/admin"
	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
	"github.com/nearzone/nearzone/proxy/cache"
)

const (
	topicLatency = "latency"
	logPurge     = "purge"
	logDrain     = "drain"

	digestEvery = 2 * time.Second
)

// shareEstimates publishes this node's digest and merges the others' until ctx ends.
func (n *node) shareEstimates(ctx context.Context) error {
	cancel := n.fleet.Subscribe(topicLatency, func(data []byte) {
		if err := n.estimator.Merge(data); err != nil {
			n.log.Warn("latency digest refused", "err", err)
		}
	})
	defer cancel()
	tick := time.NewTicker(digestEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.publishDigest()
		}
	}
}

// publishDigest tells the fleet what was measured here; nothing when that is nothing.
func (n *node) publishDigest() {
	digest := n.estimator.Digest()
	if digest == nil {
		return
	}
	if err := n.fleet.Publish(topicLatency, digest); err != nil {
		n.log.Debug("latency digest not published", "err", err)
	}
}

// purgeAnswer is what the admin door says of a purge.
type purgeAnswer struct {
	Position uint64 `json:"position"` // in the fleet's purge log
}

// purge appends to the fleet's log; this node and every other apply it from there, in the same order.
func (n *node) purge(ctx context.Context, body json.RawMessage) (any, error) {
	var p cache.Purge
	if err := decodeStrict(body, &p); err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	position, err := n.append(ctx, logPurge, body)
	if err != nil {
		return nil, err
	}
	return purgeAnswer{Position: position}, nil
}

// append adds to a log of the fleet. That the hub is away is no fault of what was asked: it may succeed later.
func (n *node) append(ctx context.Context, log string, data []byte) (uint64, error) {
	position, err := n.fleet.Append(ctx, log, data)
	if errors.Is(err, fleet.ErrNoHub) || errors.Is(err, fleet.ErrNotRunning) {
		return 0, fmt.Errorf("%w: %w; the hub in the home Region keeps the log: `nearzone status` there says what ails it", admin.ErrUnavailable, err)
	}
	return position, err
}

// followPurges applies the purge log, from its oldest entry on. Those from before this start find nothing to remove,
// since the memory cache begins empty; so nothing has to be asked of a hub that may be away.
func (n *node) followPurges(ctx context.Context) error {
	return n.follow(ctx, logPurge, func(_ uint64, data []byte) {
		var p cache.Purge
		if err := json.Unmarshal(data, &p); err != nil {
			n.log.Error("purge log entry refused", "err", err)
			return
		}
		if err := n.cache.Purge(p); err != nil {
			n.log.Error("purge refused", "err", err)
		}
	}, n.cache.RevalidateAll) // purges may have been lost with the hub's log
}

// follow replays a log from its beginning and follows it. When the log went backwards (its hub lost data), regressed
// is called, and it is followed again from its new beginning: purges and drains may be applied twice without harm.
func (n *node) follow(ctx context.Context, log string, apply func(uint64, []byte), regressed func()) error {
	for {
		err := n.fleet.Follow(ctx, log, 0, apply)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, fleet.ErrLogRegressed) {
			return err
		}
		n.log.Error("the fleet's log went backwards, following it again from its beginning", "log", log, "err", err)
		regressed()
	}
}

// drainOrder is one entry of the drain log.
type drainOrder struct {
	Target string `json:"target"`
	Undo   bool   `json:"undo,omitempty"`
}

// drain tells the fleet to take a zone or node out of the answers, or to bring it back.
func (n *node) drain(ctx context.Context, target string, undo bool) (any, error) {
	if !n.knows(target) {
		return nil, fmt.Errorf("drain: no zone or node is named %q (have: %s)", target, strings.Join(n.targets(), ", "))
	}
	if undo && !n.drained.has(target, target) {
		return nil, fmt.Errorf("drain --undo: %q is not drained (drained: %s)", target, strings.Join(n.drained.list(), ", "))
	}
	data, err := json.Marshal(drainOrder{target, undo})
	if err != nil {
		return nil, err
	}
	position, err := n.append(ctx, logDrain, data)
	if err != nil {
		return nil, err
	}
	answer := drainAnswer{Target: target, Undo: undo, Position: position}
	if !undo && !n.namesAnyWithout(target) {
		answer.Warning = "no zone is left that answers may name: they fail open until one is brought back"
	}
	return answer, nil
}

// drainAnswer is what the admin door says of a drain.
type drainAnswer struct {
	Target   string `json:"target"`
	Undo     bool   `json:"undo"`
	Position uint64 `json:"position"` // in the fleet's drain log
	Warning  string `json:"warning,omitempty"`
}

func (n *node) knows(target string) bool { return slices.Contains(n.targets(), target) }

// targets are the zones and nodes that can be drained.
func (n *node) targets() (names []string) {
	for _, z := range n.routingZones() {
		names = append(names, z.Name)
	}
	for _, z := range n.routingZones() {
		for _, node := range z.Nodes {
			names = append(names, node.ID)
		}
	}
	return names
}

// namesAnyWithout reports whether answers may name some node once target is drained too.
func (n *node) namesAnyWithout(target string) bool {
	for _, z := range n.routingZones() {
		for _, node := range z.Nodes {
			serves := z.Mode == "" || z.Mode == config.ModeServe
			if serves && z.Name != target && node.ID != target && !n.drained.has(z.Name, node.ID) {
				return true
			}
		}
	}
	return false
}

// followDrains keeps the set of drained targets as the log says.
func (n *node) followDrains(ctx context.Context) error {
	return n.follow(ctx, logDrain, func(_ uint64, data []byte) {
		var order drainOrder
		if err := json.Unmarshal(data, &order); err != nil {
			n.log.Error("drain log entry refused", "err", err)
			return
		}
		n.drained.set(order)
		n.metrics.drain(order)
		n.log.Info("drain", "target", order.Target, "undo", order.Undo)
	}, func() { n.restoreDrains(ctx) })
}

// restoreDrains appends the drains that this node knows to a log that lost them: what an operator took out must not
// come back because the hub's disk did not.
func (n *node) restoreDrains(ctx context.Context) {
	for _, target := range n.drained.list() {
		data, err := json.Marshal(drainOrder{Target: target})
		if err == nil {
			_, err = n.append(ctx, logDrain, data)
		}
		if err != nil {
			n.log.Error("drain not restored to the fleet's log", "target", target, "err", err)
		}
	}
}

// drainSet is the zones and nodes that an operator took out. One follower writes, every answer reads.
type drainSet struct {
	targets atomic.Pointer[map[string]bool]
}

func newDrainSet() *drainSet {
	d := &drainSet{}
	d.targets.Store(&map[string]bool{})
	return d
}

func (d *drainSet) set(order drainOrder) {
	next := map[string]bool{}
	for target := range *d.targets.Load() {
		next[target] = true
	}
	if order.Undo {
		delete(next, order.Target)
	} else {
		next[order.Target] = true
	}
	d.targets.Store(&next)
}

// has reports whether the zone or the node is drained.
func (d *drainSet) has(zone, node string) bool {
	targets := *d.targets.Load()
	return len(targets) > 0 && (targets[zone] || targets[node])
}

func (d *drainSet) list() []string { return sortedKeys(*d.targets.Load()) }
