package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	retention = 7 * 24 * time.Hour
	// maxLogBytes of one log: at 300 bytes a purge, 30,000 purges a day for a week. The oldest go first, and a node
	// that was away for longer is told by ErrLogRegressed.
	maxLogBytes = 64 << 20
	// dedupe is how long the hub knows an entry that is sent again; far more than Append's deadline.
	dedupe = 2 * time.Minute
	// attempt bounds one question to the hub, so that a link that comes back within Append's deadline is still used.
	attempt    = 1500 * time.Millisecond
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
	heartbeat  = time.Second // a follower notices within two of them that the hub is gone
	prefetch   = 32
)

// streams keeps each log in a JetStream stream on the hub.
type streams struct {
	log      *slog.Logger
	metrics  *metrics
	origins  *origins
	replicas int

	mu      sync.Mutex          // guards what follows
	js      jetstream.JetStream // not nil once the fleet is ready; another after a restart of the embedded server
	kickers map[*context.CancelFunc]struct{}
}

func newStreams(log *slog.Logger, m *metrics, o *origins, replicas int) *streams {
	return &streams{log: log, metrics: m, origins: o, replicas: replicas, kickers: map[*context.CancelFunc]struct{}{}}
}

// attach: a leaf asks for the hub's domain, because JetStream's plain subjects do not pass between leaf and hub.
func (s *streams) attach(conn *nats.Conn, role Role) error {
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(attempt))
	if role == Leaf {
		js, err = jetstream.NewWithDomain(conn, hubDomain, jetstream.WithDefaultTimeout(attempt))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.js = js
	return err
}

func (s *streams) hub() jetstream.JetStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.js
}

// kick makes every follower ask the hub anew: its place there is lost with the link.
func (s *streams) kick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for cancel := range s.kickers {
		(*cancel)()
	}
}

func (s *streams) untilKicked(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kickers[&cancel] = struct{}{}
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.kickers, &cancel)
	}
}

func (s *streams) append(ctx context.Context, log string, data []byte) (uint64, error) {
	id := rand.Text()
	var seq uint64
	err := s.retry(ctx, func(ctx context.Context) error {
		ack, err := s.hub().PublishMsg(ctx, &nats.Msg{Subject: logPrefix + log, Data: data},
			jetstream.WithMsgID(id), jetstream.WithExpectStream(streamName+log), jetstream.WithRetryAttempts(0))
		if errors.Is(err, jetstream.ErrNoStreamResponse) { // no hub, or the first entry ever
			if _, made := s.open(ctx, log); made != nil {
				err = made
			}
		}
		if err == nil {
			seq = ack.Sequence
		}
		return err
	})
	return seq, err
}

func (s *streams) head(ctx context.Context, log string) (uint64, error) {
	var seq uint64
	err := s.retry(ctx, func(ctx context.Context) error {
		stream, err := s.open(ctx, log)
		if err == nil {
			seq = stream.CachedInfo().State.LastSeq
		}
		return err
	})
	return seq, err
}

// retry repeats what failed until ctx ends.
func (s *streams) retry(ctx context.Context, try func(context.Context) error) error {
	wait := retryFirst
	for {
		one, cancel := context.WithTimeout(ctx, attempt)
		err := try(one)
		cancel()
		if err == nil {
			return nil
		}
		if !sleep(ctx, wait) {
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%w: %w", ErrNoHub, err)
		}
		wait = min(2*wait, retryMost)
	}
}

// open asks the hub for a log's stream as it is now, and makes it when there is none. Any node may be the first.
func (s *streams) open(ctx context.Context, log string) (jetstream.Stream, error) {
	js := s.hub()
	stream, err := js.Stream(ctx, streamName+log)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return stream, err
	}
	stream, err = js.CreateStream(ctx, jetstream.StreamConfig{
		Name:     streamName + log,
		Subjects: []string{logPrefix + log},
		Storage:  jetstream.FileStorage, Replicas: s.replicas,
		Discard: jetstream.DiscardOld, MaxAge: retention, MaxBytes: maxLogBytes, MaxMsgSize: MaxMessage + 1<<10,
		Duplicates: dedupe,
		DenyDelete: true, DenyPurge: true,
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // by a node of another version, with other limits
		return js.Stream(ctx, streamName+log)
	}
	return stream, err
}

// follow goes from session to session: one ends when the hub or the link does.
func (s *streams) follow(ctx context.Context, log string, after uint64, fn func(uint64, []byte)) error {
	f := &follower{streams: s, log: log, last: after, fn: fn}
	wait := retryFirst
	for {
		err := f.session(ctx)
		if errors.Is(err, ErrLogRegressed) {
			s.metrics.regressions.WithLabelValues(log).Inc()
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if f.settled {
			wait = retryFirst
		}
		s.log.Debug("fleet log is followed anew", "log", log, "after", f.last, "err", err)
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
		wait = min(2*wait, retryMost)
	}
}

// follower is one call of Follow.
type follower struct {
	*streams
	log string
	fn  func(uint64, []byte)

	last    uint64    // the last entry that fn has had, or what the caller had
	stamp   time.Time // when the hub stored it; zero before the first
	made    time.Time // when the hub made the log; zero before the first session
	settled bool      // the last session got as far as waiting for entries
}

var errInFlight = errors.New("an entry was lost on the way")

// session reads entries until something breaks; nothing that it did not see counts as seen.
func (f *follower) session(ctx context.Context) error {
	f.settled = false
	ctx, cancel := f.untilKicked(ctx)
	defer cancel()
	stream, err := f.open(ctx, f.log)
	if err != nil {
		return err
	}
	if err := f.verify(ctx, stream); err != nil {
		return err
	}
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		AckPolicy:     jetstream.AckNonePolicy,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: f.last + 1,
		InactiveThreshold: 10 * time.Second, MemoryStorage: true, Replicas: 1,
	})
	if err != nil {
		return err
	}
	entries, err := consumer.Messages(jetstream.PullMaxMessages(prefetch), jetstream.PullExpiry(10*time.Second),
		jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	defer entries.Stop()
	f.settled = true
	return f.read(ctx, entries)
}

// verify compares the log as it is now with what was seen of it.
func (f *follower) verify(ctx context.Context, stream jetstream.Stream) error {
	info := stream.CachedInfo()
	if err := continues(f.last, info.State.FirstSeq, info.State.LastSeq); err != nil {
		return err
	}
	if err := f.origins.accept(f.log, info.Created, f.last); err != nil {
		return err
	}
	if !f.made.IsZero() && !f.made.Equal(info.Created) {
		return fmt.Errorf("%w: the log was made anew", ErrLogRegressed)
	}
	f.made = info.Created
	if f.stamp.IsZero() || f.last < info.State.FirstSeq {
		return nil
	}
	// A hub that lost its last entries may have given their numbers to others.
	entry, err := stream.GetMsg(ctx, f.last)
	if err != nil {
		return err
	}
	if !entry.Time.Equal(f.stamp) {
		return fmt.Errorf("%w: entry %d is not the one that was seen", ErrLogRegressed, f.last)
	}
	return nil
}

func (f *follower) read(ctx context.Context, entries jetstream.MessagesContext) error {
	for place := uint64(1); ; place++ {
		m, err := entries.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("an entry without its place: %w", err)
		}
		// The consumer counts what it sent: a hole there was lost with a link, a hole in the log itself is a loss.
		if meta.Sequence.Consumer != place {
			return errInFlight
		}
		seq := meta.Sequence.Stream
		if f.last != 0 && seq != f.last+1 {
			return fmt.Errorf("%w: entry %d comes after %d", ErrLogRegressed, seq, f.last)
		}
		f.fn(seq, m.Data())
		f.last, f.stamp = seq, meta.Timestamp
	}
}

// sleep reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
