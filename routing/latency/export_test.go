package latency

import (
	"context"
	"net/netip"
	"time"
)

// Schedule lets tests see whom a Prober would probe.
type Schedule struct{ s schedule }

func (s *Schedule) Pick(list []Target, now time.Time) []Target { return s.s.pick(list, now) }

func (s *Schedule) Done(prefix netip.Prefix, answered bool, now time.Time) {
	s.s.done(prefix, answered, now)
}

func (s *Schedule) Len() int { return len(s.s.past) }

// PerTick is the most that Pick returns.
const PerTick = perTick

// Pinger is one ICMP socket.
type Pinger struct{ p *pinger }

func NewPinger(v6 bool) (*Pinger, error) {
	p, err := newPinger(v6)
	return &Pinger{p}, err
}

func (p *Pinger) Run(ctx context.Context) error { return p.p.run(ctx) }

func (p *Pinger) Ping(ctx context.Context, a netip.Addr) (time.Duration, int, error) {
	return p.p.ping(ctx, a)
}

// ParseReply is what a Pinger makes of bytes from the network.
func ParseReply(v6 bool, nonce [8]byte, b []byte) (uint16, bool) {
	return (&pinger{v6: v6, nonce: nonce}).reply(b)
}

// Waiting is how many replies are waited for.
func (p *Pinger) Waiting() int {
	p.p.mu.Lock()
	defer p.p.mu.Unlock()
	return len(p.p.waiting)
}
