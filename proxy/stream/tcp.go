package stream

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// tcpRelay is a TCP listener and its connections. Shutting it closes the listener, so that clients learn at once.
type tcpRelay struct {
	shared
	listener net.Listener
	shutting atomic.Bool
	live     atomic.Int64

	mu      sync.Mutex // guards all below
	running map[*tcpSession]struct{}
	closed  bool
}

func newTCPRelay(s shared, address string) (*tcpRelay, error) {
	l, err := s.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return &tcpRelay{shared: s, listener: l, running: map[*tcpSession]struct{}{}}, nil
}

func (r *tcpRelay) addr() net.Addr { return r.listener.Addr() }
func (r *tcpRelay) sessions() int  { return int(r.live.Load()) }
func (r *tcpRelay) isShut() bool   { return r.shutting.Load() }
func (r *tcpRelay) reopen()        {}
func (r *tcpRelay) pin() bool      { return false } // a closed listener holds no address
func (r *tcpRelay) unpin()         {}

func (r *tcpRelay) shut() {
	r.shutting.Store(true)
	_ = r.listener.Close()
}

func (r *tcpRelay) endAll(why ending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.running {
		s.cancel(why)
	}
}

func (r *tcpRelay) close(why ending) {
	r.shut()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.endAll(why)
}

func (r *tcpRelay) serve(ctx context.Context) {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for pause := time.Duration(0); ; {
		client, err := r.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			r.admit(ctx, client, &sessions)
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, most likely: let sessions end before the next try
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			r.Log.Warn("stream does not accept", "stream", r.policy.Load().name, "pause", pause, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

// admit makes a session of a connection, unless the stream is full.
func (r *tcpRelay) admit(ctx context.Context, client net.Conn, sessions *sync.WaitGroup) {
	p := r.policy.Load()
	if r.live.Add(1) > int64(p.max) {
		p.count.drop(dropFull, 1)
		r.turnAway(client)
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &tcpSession{relay: r, policy: p, client: client, cancel: cancel, began: time.Now(), address: addrPort(client.RemoteAddr())}
	if !r.enter(s) {
		cancel(nil)
		r.turnAway(client)
		return
	}
	p.count.start()
	sessions.Go(func() { s.run(ctx) })
}

func (r *tcpRelay) turnAway(client net.Conn) {
	_ = client.Close()
	r.live.Add(-1)
}

// enter puts a session on the list; false if the relay was closed meanwhile.
func (r *tcpRelay) enter(s *tcpSession) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.running[s] = struct{}{}
	return true
}

func (r *tcpRelay) leave(s *tcpSession) {
	r.mu.Lock()
	delete(r.running, s)
	r.mu.Unlock()
	r.live.Add(-1)
}
