package fleet_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

const key = "a-key-that-the-tests-share-and-nobody-else"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a fleet node under test.
type running struct {
	*fleet.Fleet
	reg  *prometheus.Registry
	stop func() // ends Run and waits for it
}

func options(node string, o fleet.Options) fleet.Options {
	o.Node = node
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(logTo(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", node)
	}
	return o
}

// logTo is where nodes log to: NEARZONE_TEST_LOG=1 shows it.
func logTo() io.Writer {
	if os.Getenv("NEARZONE_TEST_LOG") != "" {
		return os.Stderr
	}
	return io.Discard
}

func start(t *testing.T, node string, o fleet.Options) *running {
	t.Helper()
	r, err := tryStart(node, o)
	if err != nil {
		t.Fatalf("start %s: %v", node, err)
	}
	t.Cleanup(r.stop)
	return r
}

func tryStart(node string, o fleet.Options) (*running, error) {
	reg := prometheus.NewRegistry()
	o.Reg = reg
	f, err := fleet.Listen(options(node, o))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	var once sync.Once
	stop := func() { once.Do(func() { cancel(); <-ended }) }
	select {
	case <-f.Ready():
		return &running{Fleet: f, reg: reg, stop: stop}, nil
	case err := <-ended:
		cancel()
		return nil, fmt.Errorf("run: %w", err)
	}
}

func keyed(c config.Fleet) config.Fleet {
	c.Key = config.NewSecret(key)
	return c
}

// threeNodes are a hub and two leaves that have reached it.
func threeNodes(t *testing.T, keyed func(config.Fleet) config.Fleet) (hub, one, two *running) {
	t.Helper()
	hub = start(t, "hub/10.0.0.1", fleet.Options{Config: keyed(config.Fleet{Listen: "127.0.0.1:0"}), Hub: true, Data: t.TempDir()})
	leaf := fleet.Options{Config: keyed(config.Fleet{Hub: []string{hub.Addr().String()}})}
	one = start(t, "leaf one", leaf)
	two = start(t, "leaf-two", leaf)
	eventually(t, "both leaves reach the hub", func() bool {
		return one.Status().Connected && two.Status().Connected && len(hub.Status().Peers) == 2
	})
	return hub, one, two
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		runtimeYield()
	}
}

// runtimeYield lets others work between two looks at a condition.
func runtimeYield() {
	<-time.After(5 * time.Millisecond)
}

// link is a TCP path to the hub that a test can cut.
type link struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	down  bool
	hung  chan struct{} // not nil while bytes are held back; closed when they go on
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{l: l, to: to, conns: map[net.Conn]struct{}{}}
	k.wg.Go(k.accept)
	t.Cleanup(func() { _ = l.Close(); k.cut(); k.resume(); k.wg.Wait() })
	return k
}

func (k *link) accept() {
	for {
		in, err := k.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", k.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		if !k.keep(in, out) {
			continue
		}
		k.wg.Go(func() { k.carry(in, out) })
		k.wg.Go(func() { k.carry(out, in) })
	}
}

func (k *link) carry(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		k.mu.Lock()
		hung := k.hung
		k.mu.Unlock()
		if hung != nil {
			<-hung
		}
		if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

// hang holds every byte back without a word until resume.
func (k *link) hang() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hung = make(chan struct{})
}

func (k *link) resume() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hung != nil {
		close(k.hung)
		k.hung = nil
	}
}

func (k *link) keep(conns ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range conns {
		if k.down {
			_ = c.Close()
			continue
		}
		k.conns[c] = struct{}{}
	}
	return !k.down
}

// cut closes every connection and refuses new ones until heal.
func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = true
	for c := range k.conns {
		_ = c.Close()
	}
	clear(k.conns)
}

func (k *link) heal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = false
}

// runUntil runs a node while fn does its work.
func runUntil(t *testing.T, f *fleet.Fleet, fn func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	<-f.Ready()
	fn()
}
