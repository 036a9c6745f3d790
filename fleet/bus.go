package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/nats-io/nats.go"
)

// How far a subscriber may fall behind: 4,096 messages are a minute of digests and health from a large fleet; 16 MiB
// bound the memory of one that has stopped.
const (
	pendingMessages = 4096
	pendingBytes    = 16 << 20
)

// bus hands topics out. Without a connection it only remembers who wants what: a lone node has nobody to hear from.
type bus struct {
	metrics *metrics
	log     *slog.Logger
	working sync.WaitGroup // the subscribers' goroutines

	mu     sync.Mutex // guards what follows
	conn   *nats.Conn
	subs   map[*subscription]struct{}
	closed bool
}

type subscription struct {
	topic  string
	fn     func([]byte)
	cancel context.CancelFunc // nil until its goroutine runs
}

func newBus(m *metrics, log *slog.Logger) *bus {
	return &bus{metrics: m, log: log, subs: map[*subscription]struct{}{}}
}

func (b *bus) publish(topic string, data []byte) error {
	b.mu.Lock()
	conn := b.conn
	b.mu.Unlock()
	b.metrics.messagesOut.WithLabelValues(topic).Inc()
	b.metrics.bytesOut.WithLabelValues(topic).Add(float64(len(data)))
	if conn == nil {
		return nil
	}
	if err := conn.Publish(topicPrefix+topic, data); err != nil {
		return fmt.Errorf("fleet: publish to %q: %w", topic, err)
	}
	return nil
}

func (b *bus) subscribe(topic string, fn func([]byte)) func() {
	s := &subscription{topic: topic, fn: fn}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = struct{}{}
	if b.conn != nil && !b.closed {
		b.start(s)
	}
	return func() { b.drop(s) }
}

func (b *bus) drop(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
	if s.cancel != nil {
		s.cancel()
	}
}

// attach starts all that subscribed before there was a connection.
func (b *bus) attach(conn *nats.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn = conn
	for s := range b.subs {
		b.start(s)
	}
}

// detach ends what attach began; who subscribed is remembered for the next connection.
func (b *bus) detach() {
	b.mu.Lock()
	b.conn = nil
	for s := range b.subs {
		if s.cancel != nil {
			s.cancel()
		}
	}
	b.mu.Unlock()
	b.working.Wait()
}

// close ends every subscriber and waits for the calls under way. It may be called twice.
func (b *bus) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.detach()
}

// start is called with mu held.
func (b *bus) start(s *subscription) {
	in, err := b.conn.SubscribeSync(topicPrefix + s.topic)
	if err == nil {
		err = in.SetPendingLimits(pendingMessages, pendingBytes)
	}
	if err != nil { // only once the connection is closed, which is when Run ends
		b.log.Warn("fleet topic is not heard", "topic", s.topic, "err", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	b.working.Go(func() { b.deliver(ctx, s, in) })
}

// deliver is the one goroutine that calls s.fn.
func (b *bus) deliver(ctx context.Context, s *subscription, in *nats.Subscription) {
	defer func() { _ = in.Unsubscribe() }() // fails when the connection has gone, and then it is done
	messages, bytes := b.metrics.messagesIn.WithLabelValues(s.topic), b.metrics.bytesIn.WithLabelValues(s.topic)
	lost := 0
	for {
		m, err := in.NextMsgWithContext(ctx)
		switch {
		case err == nil:
			messages.Inc()
			bytes.Add(float64(len(m.Data)))
			s.fn(m.Data)
		case errors.Is(err, nats.ErrSlowConsumer):
			lost = b.countLost(s.topic, in, lost)
		default:
			b.countLost(s.topic, in, lost)
			return
		}
	}
}

// countLost adds to the metric what was dropped since it was last looked at.
func (b *bus) countLost(topic string, in *nats.Subscription, before int) int {
	total, err := in.Dropped()
	if err != nil || total <= before {
		return before
	}
	b.metrics.dropped.WithLabelValues(topic).Add(float64(total - before))
	b.log.Warn("fleet subscriber is slow, messages were dropped", "topic", topic, "dropped", total-before)
	return total
}
