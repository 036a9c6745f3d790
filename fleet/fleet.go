// Package fleet carries what nodes tell each other: topics, which reach every other node that is connected now and
// no one else, and logs, which are durable, ordered, and catch up a node that was away.
//
// It knows topics, log names and bytes; the owner of a type owns its encoding. It is not a place to keep state and not
// the truth of anything: a node serves with the fleet gone. NATS is embedded and does not show in this interface. The
// hub (one or three nodes of the home Region) keeps the logs; every other node is a leaf, which dials the hub.
//
//	f, err := fleet.Listen(fleet.Options{Config: cfg.Fleet, Node: "10.0.1.5", Hub: true, Data: dir})
//	cancel := f.Subscribe("health", func(data []byte) { … })
//	go f.Run(ctx)
//	err = f.Publish("latency", digest)
//	seq, err := f.Append(ctx, "purge", entry)
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/nearzone/nearzone/config"
)

// MaxMessage is the longest message a topic or a log takes. Digests are kilobytes; a megabyte bounds what one message
// can cost a peer.
const MaxMessage = 1 << 20

// appendTimeout bounds Append and Head when the caller's context does not: long enough for a hub that restarts, short
// enough for an operator who waits at a prompt.
const appendTimeout = 5 * time.Second

var (
	// ErrNotRunning is returned before Run has connected and after it has ended.
	ErrNotRunning = errors.New("the fleet is not running")
	// ErrNoHub is returned when the hub did not answer in time. What was to be appended may still have been kept:
	// append it again if it must be, and let entries be idempotent.
	ErrNoHub = errors.New("the hub does not answer")
	// ErrLogRegressed is returned by Follow when the log does not continue where the caller stopped: the hub lost
	// its data or a part of it, or entries that the caller has not seen are past their retention. The caller must
	// take everything the log protects as suspect (for purges: revalidate all that is stored), then follow again from
	// Head or from zero. Until it calls Follow again, a restarted process is told the same.
	ErrLogRegressed = errors.New("the log does not continue where this node stopped")
)

// Role is what a node is to its fleet.
type Role string

// The roles. A lone node has no peers configured and runs no NATS.
const (
	Lone Role = "lone"
	Hub  Role = "hub"
	Leaf Role = "leaf"
)

// Options say what a node is to its fleet.
type Options struct {
	Config config.Fleet
	Node   string // unique in the fleet
	Zone   string
	Hub    bool // this node keeps the logs and listens
	Lone   bool // no other node is configured
	// HubAddrs are the hub nodes, host:port. A leaf dials any of them. A hub of three must name all three; the
	// routes between them use the port after Config.Listen's. Empty: Config.Hub.
	HubAddrs []string
	// Data is a directory of this package's own. A hub must have one. Empty: a lone node's logs are in memory and
	// end with the process.
	Data string
	Log  *slog.Logger          // default slog.Default()
	Reg  prometheus.Registerer // default none
}

// journal keeps durable, ordered logs.
type journal interface {
	append(ctx context.Context, log string, data []byte) (uint64, error)
	follow(ctx context.Context, log string, after uint64, fn func(uint64, []byte)) error
	head(ctx context.Context, log string) (uint64, error)
}

// Fleet is this node's end of the fleet. Its methods may be called from many goroutines.
type Fleet struct {
	o       Options
	role    Role
	log     *slog.Logger
	metrics *metrics
	bus     *bus
	journal journal
	node    *node     // nil when lone
	files   *fileLogs // when lone
	ready   chan struct{}
	ended   chan struct{}
	once    sync.Once

	panicLog rate.Sometimes // a peer may cause many
}

// Listen checks the options, reads the key and binds the hub's listener. It starts nothing.
func Listen(o Options) (*Fleet, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if len(o.HubAddrs) == 0 {
		o.HubAddrs = o.Config.Hub
	}
	f := &Fleet{
		o: o, role: roleOf(o), log: o.Log, metrics: newMetrics(o.Reg),
		ready: make(chan struct{}), ended: make(chan struct{}), panicLog: rate.Sometimes{Interval: time.Second},
	}
	f.bus = newBus(f.metrics, f.log)
	if f.role == Lone {
		f.files = newFileLogs(o.Data, f.log, f.metrics)
		f.journal = f.files
		return f, nil
	}
	n, err := newNode(o, f.role, f.metrics)
	if err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	f.node, f.journal = n, n.streams
	return f, nil
}

func roleOf(o Options) Role {
	switch {
	case o.Lone:
		return Lone
	case o.Hub:
		return Hub
	}
	return Leaf
}

// Run connects this node and keeps it connected until ctx ends and all it started has ended. While it cannot (a hub's
// disk is read-only, a port was taken) it says why in the log and in Status, and tries again. A Fleet runs once.
func (f *Fleet) Run(ctx context.Context) error {
	defer f.stop()
	if f.role == Lone {
		f.metrics.connected.Set(1)
		close(f.ready)
		<-ctx.Done()
		f.stop()
		return f.files.close()
	}
	var ready sync.Once
	return f.node.run(ctx, func() {
		f.bus.attach(f.node.topics)
		ready.Do(func() { close(f.ready) })
	}, func(last bool) {
		if last {
			f.stop()
		}
		f.bus.detach()
	})
}

// stop ends what callers wait for and the subscribers' goroutines.
func (f *Fleet) stop() {
	f.once.Do(func() { close(f.ended) })
	f.bus.close()
}

// Close frees what Listen bound, for a Fleet that is never run. After Run it does nothing.
func (f *Fleet) Close() {
	if f.node != nil {
		f.node.release()
	}
}

// Ready is closed when topics and logs can be used from this process. For a leaf it does not mean that the hub is
// reached: Status says that.
func (f *Fleet) Ready() <-chan struct{} { return f.ready }

// Addr is where a hub listens for leaves; nil for other roles.
func (f *Fleet) Addr() net.Addr {
	if f.node == nil || f.role != Hub {
		return nil
	}
	return f.node.leafAddr
}

// Publish sends data to every other node that is connected now, and not to this one: at most once, in the order of
// this node's calls, without waiting for anyone. While a leaf is cut off from the hub, what it publishes is lost and
// no error says so.
func (f *Fleet) Publish(topic string, data []byte) error {
	if err := checkMessage("topic", topic, data); err != nil {
		return fmt.Errorf("fleet: publish: %w", err)
	}
	if !f.running() {
		return fmt.Errorf("fleet: publish to %q: %w", topic, ErrNotRunning)
	}
	return f.bus.publish(topic, data)
}

// Subscribe calls fn with what other nodes publish to topic, in order, from a goroutine of its own. It may be called
// before Run. A subscriber that falls more than 4,096 messages or 16 MiB behind loses messages, which is counted. One
// call may still be under way when cancel returns; none when Run has.
func (f *Fleet) Subscribe(topic string, fn func(data []byte)) (cancel func()) {
	if err := checkName("topic", topic); err != nil {
		panic("fleet: subscribe: " + err.Error())
	}
	return f.bus.subscribe(topic, func(data []byte) {
		defer f.survive("topic", topic)
		fn(data)
	})
}

// Append adds data to a durable log and returns its sequence number, which only grows, once the hub has synced it to
// disk. It gives up after 5 seconds, or with ctx, with ErrNoHub. It repeats an attempt that was not answered, and the
// hub keeps it once all the same.
func (f *Fleet) Append(ctx context.Context, log string, data []byte) (uint64, error) {
	if err := checkMessage("log", log, data); err != nil {
		return 0, fmt.Errorf("fleet: append: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if err := f.wait(ctx); err != nil {
		return 0, fmt.Errorf("fleet: append to %q: %w", log, err)
	}
	began := time.Now()
	seq, err := f.journal.append(ctx, log, data)
	f.metrics.appended(log, time.Since(began), err)
	if err != nil {
		return 0, fmt.Errorf("fleet: append to %q: %w", log, err)
	}
	return seq, nil
}

// Follow calls fn with each entry after the sequence number `after`, in order and once each, then with those to come.
// It survives the loss of the hub and of the link to it. It returns ctx's error when ctx ends, ErrNotRunning when Run
// has ended, and ErrLogRegressed when the log no longer continues from what was seen. A log that was never written is
// followed from its first entry. A process follows a log once at a time.
//
// From zero it replays what the log still holds: entries are kept for 7 days, and the newest 64 MiB of them.
func (f *Fleet) Follow(ctx context.Context, log string, after uint64, fn func(seq uint64, data []byte)) error {
	if err := checkName("log", log); err != nil {
		return fmt.Errorf("fleet: follow: %w", err)
	}
	ctx, cancel := f.untilEnded(ctx)
	defer cancel()
	if err := f.wait(ctx); err != nil {
		return fmt.Errorf("fleet: follow %q: %w", log, err)
	}
	err := f.journal.follow(ctx, log, after, func(seq uint64, data []byte) {
		func() {
			defer f.survive("log", log)
			fn(seq, data)
		}()
		f.metrics.position.WithLabelValues(log).Set(float64(seq))
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("fleet: follow %q: %w", log, err)
}

// survive is deferred around what is done with a message. One that brings out a fault reaches every node, and one in a
// log reaches it again at each start: it must not end them all.
func (f *Fleet) survive(kind, name string) {
	fault := recover()
	if fault == nil {
		return
	}
	f.metrics.panics.Inc()
	f.panicLog.Do(func() {
		f.log.Error("panic over a fleet message, which is passed over; please report it", kind, name, "panic", fault, "stack", string(debug.Stack()))
	})
}

// Head is the sequence number of the log's last entry, asked of the hub now; zero when it has none. It fails with
// ErrNoHub within 5 seconds.
func (f *Fleet) Head(ctx context.Context, log string) (uint64, error) {
	if err := checkName("log", log); err != nil {
		return 0, fmt.Errorf("fleet: head: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	err := f.wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("fleet: head of %q: %w", log, err)
	}
	seq, err := f.journal.head(ctx, log)
	if err != nil {
		return 0, fmt.Errorf("fleet: head of %q: %w", log, err)
	}
	return seq, nil
}

// Status is what an operator asks of the fleet.
type Status struct {
	Role      Role     `json:"role"`
	Connected bool     `json:"connected"`       // lone: always; hub: serving; leaf: the hub is reached
	Peers     []string `json:"peers,omitempty"` // nodes connected to this one, sorted; a leaf sees hub nodes alone
	Error     string   `json:"error,omitempty"` // why it is not connected, or why a hub's logs take no entries
}

// Status reports this node's end of the fleet as it is now.
func (f *Fleet) Status() Status {
	if f.role == Lone {
		return Status{Role: Lone, Connected: true}
	}
	return f.node.status()
}

func (f *Fleet) running() bool {
	select {
	case <-f.ended:
		return false
	default:
	}
	select {
	case <-f.ready:
		return true
	default:
		return false
	}
}

// wait returns when the fleet can be used.
func (f *Fleet) wait(ctx context.Context) error {
	select {
	case <-f.ended:
		return ErrNotRunning
	default:
	}
	select {
	case <-f.ready:
		return nil
	case <-f.ended:
		return ErrNotRunning
	case <-ctx.Done():
		if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
			return cause
		}
		return ErrNotRunning
	}
}

// untilEnded makes a context that also ends, with ErrNotRunning, when Run does.
func (f *Fleet) untilEnded(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-f.ended:
			cancel(ErrNotRunning)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
