package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/demo"
	"github.com/nearzone/nearzone/routing"
)

type demoCmd struct{}

// Run serves the demo until a signal.
func (demoCmd) Run(ctx context.Context, s streams) error {
	log, level := newLogger(s.err)
	setLevel(level, "error") // that leaves dial the hub before it listens is no news here
	return demo.Run(ctx, demo.Options{Out: s.out, Start: func(cfg *config.Config) (demo.Node, error) {
		n, err := newNode(cfg, nodeOptions{Log: log.With("on", cfg.Node.Zone)})
		if err != nil {
			return demo.Node{}, err
		}
		return demoNode(n), nil
	}})
}

func demoNode(n *node) demo.Node {
	return demo.Node{
		Run: func(ctx context.Context) error { return serve(ctx, n, func(context.Context, func()) {}) },
		Observe: func(client netip.Addr, rtt time.Duration) {
			n.estimator.Observe(client, rtt, routing.Simulated)
		},
		Answer: func(name string, client netip.Addr) (string, bool) {
			answer, ok := n.router.Answer(name, client)
			return answer.Zone, ok
		},
	}
}
