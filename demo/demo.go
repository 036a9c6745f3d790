// Package demo is the small world of `nearzone demo`: an example origin in "the Region", three nodes, their fleet and
// the DNS, in one process on loopback. The viewers are simulated: a latency matrix fed straight into the nodes'
// estimates, since loopback has no distance. Everything else is the real thing.
//
// It starts nothing of its own kind: nodes come from the Start func it is given.
package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearzone/nearzone/config"
)

//go:embed demo.yaml
var yaml []byte

// Name is the steered name of the demo.
const Name = "play.example.com"

// Node is a running node as the demo needs it.
type Node struct {
	Run     func(ctx context.Context) error
	Observe func(client netip.Addr, rtt time.Duration)                  // takes a simulated sample of this node's zone
	Answer  func(name string, client netip.Addr) (zone string, ok bool) // what this node's DNS would say
}

// Options of the demo. Out takes what it prints; Start makes a node of a configuration, bound and not yet running.
type Options struct {
	Out   io.Writer
	Start func(cfg *config.Config) (Node, error)
}

// zones of the demo, in the order of their addresses.
var zones = []string{"us-west-2-lax-1a", "us-west-2-phx-2a", "us-west-2"}

// Run serves the demo until ctx ends and all of it has stopped.
func Run(ctx context.Context, o Options) error {
	data, err := os.MkdirTemp("", "nearzone-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo's data: %w", err)
	}
	defer os.RemoveAll(data)
	origin, err := listenOrigin()
	if err != nil {
		return err
	}
	w := &world{out: o.Out, origin: origin, at: addresses(), nodes: map[string]Node{}}
	if err := w.build(o.Start, data); err != nil {
		origin.close()
		return err
	}
	return w.run(ctx)
}

// world is everything the demo runs.
type world struct {
	out    io.Writer
	origin *exampleOrigin
	at     places
	nodes  map[string]Node
}

func (w *world) build(start func(*config.Config) (Node, error), data string) error {
	for _, zone := range zones {
		cfg, err := config.Parse("demo.yaml", yaml, config.Options{Zone: zone, Env: w.environment(zone, data)})
		if err != nil {
			return err
		}
		node, err := start(cfg)
		if err != nil {
			return fmt.Errorf("start %s: %w", zone, err)
		}
		w.nodes[zone] = node
	}
	return nil
}

func (w *world) environment(zone, data string) func(string) (string, bool) {
	values := map[string]string{
		"ZONE": zone, "DATA": data + "/" + zone, "ORIGIN": w.origin.url(), "HUB": w.at.hub,
		"LAX": w.at.nodes[0], "PHX": w.at.nodes[1], "REGION": w.at.nodes[2],
	}
	return func(name string) (string, bool) { v, ok := values[name]; return v, ok }
}

func (w *world) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.origin.run(ctx) })
	for zone, node := range w.nodes {
		g.Go(func() error {
			if err := node.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", zone, err)
			}
			return nil
		})
	}
	g.Go(func() error { return w.live(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	fmt.Fprintln(w.out, "stopped")
	return nil
}

// places are the addresses of the demo's nodes, in the order of zones, and of its hub.
type places struct {
	nodes []string
	hub   string
}

// addresses are 127.0.0.2 to 127.0.0.4 where loopback is a whole /8 (Linux), else three ports of 127.0.0.1 (macOS).
func addresses() places {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		return places{[]string{"127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"}, "127.0.0.1:7422"}
	}
	l.Close()
	return places{[]string{"127.0.0.2:8080", "127.0.0.3:8080", "127.0.0.4:8080"}, "127.0.0.4:7422"}
}
