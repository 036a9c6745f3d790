package latency

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	// enough samples of this zone, by connections or by probes, and a prefix is not probed.
	enough = 3.0
	// fresh is how recently a prefix must have had a client, somewhere in the fleet. Our own probes are no client.
	fresh = 24 * time.Hour
	// After an answer a prefix is left alone for a quarter of a day, so it is asked four times a day at most; after
	// silence for an hour, then twice as long each time, up to a day: most addresses that do not answer never will.
	afterAnswer  = 6 * time.Hour
	afterSilence = time.Hour
	longestPause = 24 * time.Hour
	// perTick bounds what one node sends at once: with three echoes a target and a tick each three seconds, 24 packets a second.
	perTick = 24
)

// Target is a prefix with traffic in the fleet, as one zone sees it.
type Target struct {
	Prefix netip.Prefix
	Client netip.Addr // seen there last
	Seen   time.Time
	N      float64 // samples of this zone, decayed, all its nodes together
}

// Targets are the prefixes of the fleet that had a client of their own.
func (e *Estimator) Targets() []Target {
	now := e.now()
	zones := *e.zones.Load()
	found := map[netip.Prefix]*Target{}
	note := func(prefix netip.Prefix, zone string, n float64, client netip.Addr, seen int64) {
		t := found[prefix]
		if t == nil {
			t = &Target{Prefix: prefix}
			found[prefix] = t
		}
		if zone == e.zone {
			t.N += n
		}
		if at := time.Unix(0, seen); client.IsValid() && at.After(t.Seen) {
			t.Client, t.Seen = client, at
		}
	}
	for i := range e.shards {
		e.shards[i].each(now, func(k key, c *cell) { note(k.prefix, zones[k.zone], c.weight(now), c.client, c.seen) })
	}
	e.peers.each(now, func(p netip.Prefix, zone string, r remote) { note(p, zone, r.weight(now), r.client, r.seen) })
	var list []Target
	for _, t := range found {
		if t.Client.IsValid() {
			list = append(list, *t)
		}
	}
	return list
}

// schedule decides whom to probe. It knows no clock, socket or lock.
type schedule struct {
	past map[netip.Prefix]attempt
}

type attempt struct {
	next   time.Time // not before
	silent int       // attempts in a row without an answer
}

// pick is whom to probe now: those seen last first, since they will ask again soonest. Each is left alone until
// done is called, or for the pause after silence.
func (s *schedule) pick(list []Target, now time.Time) []Target {
	s.forget(now)
	var due []Target
	for _, t := range list {
		if t.N < enough && now.Sub(t.Seen) <= fresh && !now.Before(s.past[t.Prefix].next) {
			due = append(due, t)
		}
	}
	slices.SortFunc(due, func(a, b Target) int {
		return cmp.Or(b.Seen.Compare(a.Seen), a.Prefix.Compare(b.Prefix))
	})
	due = due[:min(len(due), perTick)]
	for _, t := range due {
		s.done(t.Prefix, false, now)
	}
	return due
}

// done notes how an attempt ended.
func (s *schedule) done(prefix netip.Prefix, answered bool, now time.Time) {
	if s.past == nil {
		s.past = map[netip.Prefix]attempt{}
	}
	if answered {
		s.past[prefix] = attempt{next: now.Add(afterAnswer)}
		return
	}
	a := s.past[prefix]
	pause := min(afterSilence<<min(a.silent, 10), longestPause)
	s.past[prefix] = attempt{next: now.Add(pause), silent: a.silent + 1}
}

// forget drops those whose pause ended long ago: had they traffic, they would have been asked since.
func (s *schedule) forget(now time.Time) {
	for p, a := range s.past {
		if now.Sub(a.next) > longestPause {
			delete(s.past, p)
		}
	}
}
