package latency

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/nearzone/nearzone/routing"
)

// numShards keeps connections that close at the same moment from waiting for each other.
const numShards = 64

type key struct {
	prefix netip.Prefix
	zone   uint8
}

func (k key) shard(seed maphash.Seed) uint64 { return maphash.Comparable(seed, k) % numShards }

// shard is a part of the cells, at most max of them.
type shard struct {
	mu    sync.Mutex // guards cells and what they point to
	cells map[key]*cell
	max   int
}

// add takes a sample. It reports false, having done nothing, when the cell is new and prior is nil.
func (s *shard) add(k key, client netip.Addr, rtt time.Duration, src routing.Source, now time.Time, prior *float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cells[k]
	if c == nil || c.weight(now) < minN {
		if prior == nil {
			return false
		}
		if c == nil && len(s.cells) >= s.max {
			evict(s.cells, func(c *cell) float64 { return c.weight(now) })
		}
		c = newCell(*prior)
		s.cells[k] = c
	}
	if !c.tooSoon(src, now) {
		c.add(float64(rtt)/float64(time.Millisecond), now)
		c.source(client, src, now)
	}
	return true
}

// each calls f, under the lock, with every cell that still means something, drops the others, and returns how many
// are left.
func (s *shard) each(now time.Time, f func(key, *cell)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range s.cells {
		if c.weight(now) < minN {
			delete(s.cells, k)
			continue
		}
		f(k, c)
	}
	return len(s.cells)
}

// evictSample is how many entries eviction looks at. Taking the lightest of eight drops one of the lightest eighth on
// average, which is as good as a list in order and needs no list.
const evictSample = 8

// evict drops the entry of a few that means least: few samples, or old ones. So a stranger who comes once from each
// of many networks displaces other strangers, and nobody who comes often. Go's maps begin anywhere when ranged over.
func evict[K comparable, V any](m map[K]V, weight func(V) float64) {
	var lightest K
	var least float64
	looked := 0
	for k, v := range m {
		if w := weight(v); looked == 0 || w < least {
			lightest, least = k, w
		}
		if looked++; looked == evictSample {
			break
		}
	}
	delete(m, lightest)
}
