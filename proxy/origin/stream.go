package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// DialContext makes a connection for a stream to the server that key belongs to: by rendezvous among those that
// are up, own zone first, so that a key keeps its server as long as it is up. network is tcp or udp, or one of
// them with 4 or 6.
//
// For tcp the next server by rank is tried when a connect fails, and each connect has timeouts.connect. For udp
// the connection is a connected *net.UDPConn; whether anybody is there shows later, and is told to Report.
func (p *Pool) DialContext(ctx context.Context, network, key string) (net.Conn, error) {
	servers := p.ranked(key)
	if len(servers) == 0 && p.await(ctx) {
		servers = p.ranked(key)
	}
	var errs []error
	for _, s := range servers {
		c, err := s.dialStream(ctx, network)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("origin %q: server %s: %w", p.name, s.name, context.Cause(ctx))
		}
		errs = append(errs, streamError(p.name, s, err))
	}
	if len(errs) == 0 {
		return nil, p.noServer()
	}
	return nil, errors.Join(errs...)
}

func streamError(origin string, s *server, err error) error {
	kinds := []error{ErrConnect}
	var connect *connectError
	var timeout net.Error
	switch {
	case errors.As(err, &connect) && connect.refused:
		kinds = []error{ErrNoServer}
	case errors.As(err, &timeout) && timeout.Timeout():
		kinds = append(kinds, ErrTimeout)
	}
	return &serverError{origin: origin, server: s.name, kinds: kinds, err: err}
}

// ranked lists servers in the order a key tries them: those up in the own zone, those up elsewhere; when none is
// up, all that may be tried.
func (p *Pool) ranked(key string) []*server {
	k := hashOf(key)
	best := func(a, b *server) int { return byScore(k, b, a) }
	var list []*server
	for _, tier := range p.members.Load().tiers {
		from := len(list)
		for _, s := range tier {
			if s.up() {
				list = append(list, s)
			}
		}
		slices.SortFunc(list[from:], best)
	}
	if len(list) == 0 {
		list = p.candidates(nil, time.Now())
		slices.SortFunc(list, best)
	}
	return list
}

func (s *server) dialStream(ctx context.Context, network string) (net.Conn, error) {
	if strings.HasPrefix(network, "udp") {
		return (&net.Dialer{}).DialContext(ctx, network, s.address)
	}
	return s.connect(ctx, nil)
}
