package healthcheck

import (
	"maps"
	"slices"
	"time"
)

// verdicts is what a set of views amounts to. It is immutable once published.
type verdicts struct {
	nodes   map[string]verdict
	reached map[string]bool // origins that a living node reaches
	onward  map[onwardKey]time.Duration
	until   time.Time // when the first of the views expires; zero: never
}

type onwardKey struct{ zone, origin string }

// verdict on one node. The zero value is a node nobody speaks of.
type verdict struct {
	inFavour, against []string // zones, sorted
	draining          bool
	origins           map[string]bool // the node's own view; nil: none
}

func (v verdict) down() bool { return len(v.against) > len(v.inFavour) }

// unreached lists the origins that the node misses and others reach.
func (all *verdicts) unreached(v verdict) []string {
	var names []string
	for _, origin := range slices.Sorted(maps.Keys(v.origins)) {
		if !v.origins[origin] && all.reached[origin] {
			names = append(names, origin)
		}
	}
	return names
}

// count is the whole rule of the quorum: views in, verdicts out.
func count(views map[string]seen, zones map[string]string) *verdicts {
	all := &verdicts{nodes: make(map[string]verdict), reached: make(map[string]bool)}
	for node, votes := range poll(views) {
		all.nodes[node] = votes.settle(zones[node])
	}
	for node, view := range views {
		v := all.nodes[node]
		v.draining, v.origins = view.Draining, view.Origins
		all.nodes[node] = v
		if v.down() {
			continue // what it reaches helps nobody
		}
		for origin, reaches := range view.Origins {
			if reaches {
				all.reached[origin] = true
			}
		}
	}
	return all
}

// ballot counts the voices of each zone on one node: those that find it up less those that find it down.
type ballot map[string]int

func poll(views map[string]seen) map[string]ballot {
	polls := make(map[string]ballot)
	for voter, view := range views {
		for node, up := range view.Peers {
			if node == voter {
				continue
			}
			b := polls[node]
			if b == nil {
				b = make(ballot)
				polls[node] = b
			}
			if up {
				b[view.Zone]++
			} else {
				b[view.Zone]--
			}
		}
	}
	return polls
}

// settle turns voices into one vote a zone, leaving out the node's own zone where others vote.
func (b ballot) settle(own string) verdict {
	var v verdict
	_, ownVotes := b[own]
	for zone, voices := range b {
		if zone == own && ownVotes && len(b) > 1 {
			continue
		}
		if voices < 0 {
			v.against = append(v.against, zone)
		} else {
			v.inFavour = append(v.inFavour, zone)
		}
	}
	slices.Sort(v.against)
	slices.Sort(v.inFavour)
	return v
}

// onward is the least round trip that the nodes of each zone tell, by origin.
func onward(views map[string]seen) map[onwardKey]time.Duration {
	least := make(map[onwardKey]time.Duration)
	for _, view := range views {
		for origin, rtt := range view.Onward {
			key := onwardKey{view.Zone, origin}
			if old, ok := least[key]; !ok || rtt < old {
				least[key] = rtt
			}
		}
	}
	return least
}
