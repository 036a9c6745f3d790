package stream

import (
	"fmt"
	"net"
	"slices"

	"github.com/nearzone/nearzone/config"
)

// doorKey says which listener is the same after a reload.
type doorKey struct {
	network, address string
	name             string // only where the port is 0, so that several such addresses are several listeners
}

func keyOf(st config.Stream) doorKey {
	k := doorKey{network: st.Network, address: st.Listen}
	if _, port, err := net.SplitHostPort(st.Listen); err != nil || port == "0" {
		k.name = st.Name
	}
	return k
}

// Reload binds what is new in cfg. Nothing changes until apply is called, which cannot fail: listeners whose address
// stays are kept with their sessions, and so are the sessions of a stream that moves to another address; new sessions
// go by the new policy. Sessions of streams that cfg no longer has end. A Reload that is never applied keeps what it
// bound until the next one, or until Run returns.
func (s *Streams) Reload(cfg *config.Config) (apply func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[doorKey]*policy{}
	for _, st := range cfg.Streams {
		k := keyOf(st)
		if other := next[k]; other != nil {
			return nil, fmt.Errorf("streams.%s.listen: %s://%s is the address of streams.%s, too", st.Name, st.Network, st.Listen, other.name)
		}
		next[k] = newPolicy(st, s.metrics)
		if err := s.reserve(k, next[k]); err != nil {
			return nil, fmt.Errorf("streams.%s.listen: %w", st.Name, err)
		}
	}
	patience := cfg.Drain.Streams
	return func() {
		s.mu.Lock()
		s.patience = patience
		s.swap(next)
		s.mu.Unlock()
		s.notify()
	}, nil
}

// reserve binds the address of k unless a door has it.
func (s *Streams) reserve(k doorKey, p *policy) error {
	if s.doors[k] != nil || s.reserved[k] != nil || slices.ContainsFunc(s.retired, func(d *door) bool { return d.key == k && d.pin() }) {
		return nil
	}
	d, err := s.open(k, p)
	if err != nil {
		return err
	}
	s.reserved[k] = d
	return nil
}

// swap makes next the streams that are served.
func (s *Streams) swap(next map[doorKey]*policy) {
	wanted := map[string]bool{}
	for _, p := range next {
		wanted[p.name] = true
	}
	old := s.doors
	s.doors = map[doorKey]*door{}
	for k, p := range next {
		d := s.take(k, old)
		d.policy.Store(p)
		s.doors[k] = d
		if s.draining {
			d.shut()
		}
	}
	for k, d := range old {
		if s.doors[k] == nil {
			s.retired = append(s.retired, d)
		}
	}
	for _, d := range s.retired {
		if wanted[d.policy.Load().name] {
			d.shut()
			d.unpin()
		} else {
			d.close(endRemoved)
		}
	}
	for k, d := range s.reserved { // of reloads that were not applied
		d.close(endRemoved)
		delete(s.reserved, k)
	}
}

// take finds the door for k: the one that serves it, one that was retired and still holds the address (Reload pinned
// it), or the one that Reload bound.
func (s *Streams) take(k doorKey, serving map[doorKey]*door) *door {
	if d := serving[k]; d != nil {
		return d
	}
	for i, d := range s.retired {
		if d.key == k && d.pin() {
			s.retired = slices.Delete(s.retired, i, i+1)
			d.reopen()
			return d
		}
	}
	d := s.reserved[k]
	delete(s.reserved, k)
	return d
}

func (s *Streams) closeReserved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, d := range s.reserved {
		d.close(endStopped)
		delete(s.reserved, k)
	}
}
