package origin

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

const (
	// Bounds of how long an answer is used. The lower keeps a TTL of 0 from becoming a flood of queries.
	minTTL = time.Second
	maxTTL = time.Hour
	// maxBackOff is the longest wait after answers that failed; it starts at minTTL and doubles.
	maxBackOff = 30 * time.Second
	// resolveTimeout bounds one resolution, all name servers and the fallback included.
	resolveTimeout = 15 * time.Second
	maxAddrs       = 64 // used of one name
)

// name is a hostname among the servers of a pool.
type name struct {
	addrs []netip.Addr // sorted; kept when a resolution fails
	err   error        // of the last resolution, or about addresses that were refused
	known bool         // resolved once, well or not
}

// follow resolves a name again and again, by its TTL, until ctx ends.
func (p *Pool) follow(ctx context.Context, host string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	backOff := minTTL
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		addrs, ttl, err := p.resolve(ctx, host)
		if ctx.Err() != nil {
			return
		}
		p.resolved(host, addrs, err)
		wait := min(max(ttl, minTTL), maxTTL)
		if len(addrs) == 0 {
			wait, backOff = backOff, min(2*backOff, maxBackOff)
		} else {
			backOff = minTTL
		}
		timer.Reset(wait)
	}
}

// resolve asks once. addrs are those that may be used; err may come beside them.
func (p *Pool) resolve(ctx context.Context, host string) (addrs []netip.Addr, ttl time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	all, ttl, err := p.set.deps.Resolve(ctx, host)
	if err == nil && len(all) == 0 {
		err = errors.New("resolve " + host + ": no addresses")
	}
	if err != nil {
		return nil, 0, err
	}
	addrs, err = admit(host, all)
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	return addrs[:min(len(addrs), maxAddrs)], ttl, err
}

// resolved takes an answer: the members follow it, or stay as they are when it has no address.
func (p *Pool) resolved(host string, addrs []netip.Addr, err error) {
	c := p.learn(host, addrs, err)
	if c.moved {
		p.set.retarget()
	}
	for _, s := range c.gone {
		s.retire()
	}
	switch {
	case c.turned && err != nil:
		p.log.Warn("resolve origin", "origin", p.name, "host", host, "addresses", c.addrs, "err", err)
	case c.moved || c.turned:
		p.log.Info("origin resolved", "origin", p.name, "host", host, "addresses", c.addrs)
	}
}

// change is what an answer made of a name.
type change struct {
	turned bool // from good to bad, or back
	moved  bool // to other addresses
	addrs  []netip.Addr
	gone   []*server
}

func (p *Pool) learn(host string, addrs []netip.Addr, err error) change {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return change{}
	}
	n := p.names[host]
	c := change{
		turned: (err == nil) != (n.err == nil),
		moved:  len(addrs) > 0 && !slices.Equal(addrs, n.addrs),
	}
	n.err = err
	if c.moved {
		n.addrs = addrs
		before := p.members.Load().all
		p.rebuild(byKey(before))
		c.gone = p.members.Load().without(before)
	}
	c.addrs = n.addrs
	if !n.known {
		n.known = true
		if p.waiting--; p.waiting == 0 {
			close(p.ready)
		}
	}
	return c
}
