package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	startTimeout = 10 * time.Second
	startAgain   = 10 * time.Second // at most, after the server did not start
	// How often the link is looked at: what Follow and the gauge learn of a loss comes this much later.
	watchEvery = 200 * time.Millisecond
)

// node is the embedded NATS server of a hub or a leaf, and this process's own connections to it.
type node struct {
	options *server.Options
	role    Role
	node    string
	log     *slog.Logger
	metrics *metrics
	bridge  *bridge
	streams *streams

	leafAddr net.Addr // of a hub
	topics   *nats.Conn
	journal  *nats.Conn

	mu     sync.Mutex // guards what follows
	held   []net.Listener
	server *server.Server // nil unless running
	linked bool
}

// newNode binds a hub's ports and holds them until run hands them to the embedded server.
func newNode(o Options, role Role, m *metrics) (*node, error) {
	options, err := serverOptions(o, role)
	if err != nil {
		return nil, err
	}
	replicas := 1
	if len(o.HubAddrs) > 1 {
		replicas = hubSize
	}
	n := &node{
		options: options, role: role, node: o.Node, log: o.Log, metrics: m,
		bridge: newBridge(o.Log, m),
	}
	n.streams = newStreams(o.Log, m, newOrigins(o.Data), replicas)
	if role != Hub {
		return n, nil
	}
	if err := n.bind(); err != nil {
		n.release()
		return nil, err
	}
	return n, nil
}

func (n *node) bind() error {
	leaves, err := net.Listen("tcp", hostPort(n.options.LeafNode.Host, n.options.LeafNode.Port))
	if err != nil {
		return fmt.Errorf("listen for the fleet's nodes (fleet.listen): %w", err)
	}
	n.held = append(n.held, leaves)
	n.leafAddr = leaves.Addr()
	n.options.LeafNode.Port = leaves.Addr().(*net.TCPAddr).Port
	if n.options.Cluster.Port == 0 {
		return nil
	}
	routes, err := net.Listen("tcp", hostPort(n.options.Cluster.Host, n.options.Cluster.Port))
	if err != nil {
		return fmt.Errorf("listen for the other hub nodes (the port after fleet.listen): %w", err)
	}
	n.held = append(n.held, routes)
	return nil
}

func (n *node) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.held {
		_ = l.Close() // it was never accepted from
	}
	n.held = nil
}

// run serves until ctx ends. started is called when this process is connected, stopping before it is disconnected; in
// between, both are called again for each restart of the embedded server, stopping with true when it was the last.
func (n *node) run(ctx context.Context, started func(), stopping func(last bool)) error {
	for ctx.Err() == nil {
		if err := n.serve(ctx, started, stopping); err != nil {
			return fmt.Errorf("fleet: %w", err)
		}
	}
	return nil
}

// serve is one life of the embedded server.
func (n *node) serve(ctx context.Context, started func(), stopping func(last bool)) error {
	s := n.startUntil(ctx)
	if s == nil {
		return nil
	}
	defer n.shutdown(s)
	if err := n.connect(s); err != nil {
		return err
	}
	defer n.disconnect()
	if err := n.streams.attach(n.journal, n.role); err != nil {
		return err
	}
	started()
	defer func() { stopping(ctx.Err() != nil) }()
	n.metrics.logFailing.Set(0)
	n.watch(ctx, s)
	return nil
}

// startUntil starts the embedded server, and tries again until ctx ends: a disk that came back read-only is no reason
// for the node to end, which serves without a fleet. It is nil when ctx ended first.
func (n *node) startUntil(ctx context.Context) *server.Server {
	for wait := retryFirst; ; wait = min(2*wait, startAgain) {
		s, err := n.start()
		if err == nil {
			return s
		}
		n.log.Error("the fleet does not start, this node serves on its own until it does", "node", n.node, "role", n.role, "err", err)
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// start gives the held ports to the embedded server. Between the two a port is free for a moment; the server's own
// report of a failed bind arrives as a fatal log line.
func (n *node) start() (*server.Server, error) {
	options := n.options.Clone() // a server that does not start changes them all the same
	s, err := server.NewServer(options)
	if err != nil {
		n.release()
		n.bridge.remember(err.Error())
		return nil, fmt.Errorf("make the embedded NATS server: %w", err)
	}
	s.SetLoggerV2(n.bridge, false, false, false)
	n.release()
	n.bridge.revive()
	s.Start()
	switch {
	case !n.isReady(s):
		err = fmt.Errorf("start the embedded NATS server: %s", n.bridge.reason())
	case n.role == Hub && !s.JetStreamEnabled():
		err = fmt.Errorf("open the fleet's logs under %q: %s", n.options.StoreDir, n.bridge.reason())
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	n.mu.Lock()
	n.server = s
	n.mu.Unlock()
	return s, nil
}

// isReady waits until the server takes connections or has said that it never will.
func (n *node) isReady(s *server.Server) bool {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		ready := s.ReadyForConnections(watchEvery)
		if n.bridge.fatal() != "" {
			return false
		}
		if ready {
			return true
		}
	}
	return false
}

// connect makes two connections, so that a slow subscriber of topics cannot hold up the logs.
func (n *node) connect(s *server.Server) error {
	options := []nats.Option{
		nats.InProcessServer(s), nats.Name(n.node), nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond),
		nats.FlusherTimeout(2 * time.Second), nats.ErrorHandler(n.asyncError),
	}
	var err error
	if n.topics, err = nats.Connect("", append(options, nats.NoEcho())...); err != nil {
		return fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	if n.journal, err = nats.Connect("", options...); err != nil {
		n.topics.Close()
		return fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return nil
}

// asyncError: a slow subscriber is counted and logged by the one who reads the subscription.
func (n *node) asyncError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if !errors.Is(err, nats.ErrSlowConsumer) {
		n.log.Debug("fleet connection", "err", err)
	}
}

func (n *node) disconnect() {
	n.topics.Close()
	n.journal.Close()
}

func (n *node) shutdown(s *server.Server) {
	n.mu.Lock()
	n.server, n.linked = nil, false
	n.mu.Unlock()
	s.Shutdown()
	s.WaitForShutdown()
	n.metrics.connected.Set(0)
	n.metrics.peers.Set(0)
}

// watch follows the link until ctx ends, or the embedded server has to be restarted.
func (n *node) watch(ctx context.Context, s *server.Server) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var seen linkState
	var k keeper
	for {
		seen = n.observe(s, seen)
		if n.role == Hub && k.recovered(n, s, time.Now()) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

type linkState struct {
	linked bool
	ever   bool  // it was linked before
	slow   int64 // connections the server has closed as slow
}

// observe tells the log, the metrics and the followers what changed since the last look.
func (n *node) observe(s *server.Server, was linkState) linkState {
	now := linkState{linked: n.isLinked(s), ever: was.ever, slow: s.NumSlowConsumers()}
	n.metrics.peers.Set(float64(s.NumLeafNodes() + s.NumRoutes()))
	n.metrics.slowPeers.Add(float64(now.slow - was.slow))
	if now.linked == was.linked {
		return now
	}
	n.mu.Lock()
	n.linked = now.linked
	n.mu.Unlock()
	if !now.linked {
		n.metrics.connected.Set(0)
		n.log.Warn("fleet hub is lost, this node serves on its own", "node", n.node, "role", n.role)
		return now
	}
	n.metrics.connected.Set(1)
	n.bridge.clear()
	if was.ever {
		n.metrics.reconnects.Inc()
	}
	n.log.Info("fleet connected", "node", n.node, "role", n.role)
	n.streams.kick()
	now.ever = true
	return now
}

// isLinked: a leaf has the hub; a hub is one, and of three it sees at least one other, which makes a majority.
func (n *node) isLinked(s *server.Server) bool {
	switch {
	case n.role == Leaf:
		return s.NumLeafNodes() > 0
	case n.options.Cluster.Port != 0:
		return s.NumRoutes() > 0
	}
	return true
}

func (n *node) status() Status {
	n.mu.Lock()
	s, linked := n.server, n.linked
	n.mu.Unlock()
	st := Status{Role: n.role, Connected: linked}
	if s != nil {
		st.Peers = peers(s)
	}
	st.Error = n.bridge.storeError()
	if !linked {
		st.Error = n.bridge.reason()
	}
	return st
}

func peers(s *server.Server) []string {
	var names []string
	if leaves, err := s.Leafz(nil); err == nil {
		for _, l := range leaves.Leafs {
			names = append(names, l.Name)
		}
	}
	if routes, err := s.Routez(nil); err == nil {
		for _, r := range routes.Routes {
			names = append(names, r.RemoteName)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
