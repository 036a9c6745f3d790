package store

import (
	"math"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// shard is one lock and what it guards. Hits touch no list: they count on the object itself, and the lists,
// used as queues, look at the count when its turn to go has come (S3-FIFO).
type shard struct {
	mu        sync.RWMutex // guards everything below
	index     map[string][]*Object
	probation *simplelru.LRU[uint64, *Object] // not asked for again yet
	proven    *simplelru.LRU[uint64, *Object]
}

func (sh *shard) init() {
	sh.index = map[string][]*Object{}
	sh.probation = newQueue()
	sh.proven = newQueue()
}

// newQueue makes a list without a bound of its own: the budget is bytes and the store's.
func newQueue() *simplelru.LRU[uint64, *Object] {
	q, err := simplelru.NewLRU[uint64, *Object](math.MaxInt, nil)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return q
}

// put adds o in front of its variants and returns what it displaced.
func (sh *shard) put(o *Object) (gone []*Object) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	kept := make([]*Object, 1, len(sh.index[o.Key])+1)
	kept[0] = o
	for _, old := range sh.index[o.Key] {
		if old.Variant == o.Variant || len(kept) == maxVariants {
			gone = append(gone, old)
			sh.unqueue(old)
			if old.Variant == o.Variant {
				o.uses.Store(old.worth())
			}
			continue
		}
		kept = append(kept, old)
	}
	sh.index[o.Key] = kept
	sh.probation.Add(o.id, o)
	return gone
}

func (sh *shard) remove(o *Object) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.drop(o)
}

func (sh *shard) removeKey(key string) []*Object {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	gone := sh.index[key]
	for _, o := range gone {
		sh.unqueue(o)
	}
	delete(sh.index, key)
	return gone
}

// drop takes o out of the index and its queue. The old slice may be in a reader's hands and stays as it is.
func (sh *shard) drop(o *Object) bool {
	i := slices.Index(sh.index[o.Key], o)
	if i < 0 {
		return false
	}
	sh.unqueue(o)
	if left := slices.Concat(sh.index[o.Key][:i], sh.index[o.Key][i+1:]); len(left) > 0 {
		sh.index[o.Key] = left
	} else {
		delete(sh.index, o.Key)
	}
	return true
}

func (sh *shard) unqueue(o *Object) {
	if !sh.probation.Remove(o.id) {
		sh.proven.Remove(o.id)
	}
}

func (sh *shard) queue(probation bool) *simplelru.LRU[uint64, *Object] {
	if probation {
		return sh.probation
	}
	return sh.proven
}

// oldest is the number of the queue's next in turn: the lower, the older.
func (sh *shard) oldest(probation bool) uint64 {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if _, o, ok := sh.queue(probation).GetOldest(); ok {
		return o.turn
	}
	return math.MaxUint64
}

// next takes the queue's next in turn out and returns it, unless it was used since it came there: then it goes
// to the end of the proven ones, one use poorer, and nil is returned.
func (sh *shard) next(s *Store, probation bool) *Object {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q := sh.queue(probation)
	_, o, ok := q.GetOldest()
	if !ok {
		return nil
	}
	if !o.spend() {
		sh.drop(o)
		return o
	}
	q.RemoveOldest()
	o.turn = s.turns.Add(1)
	sh.proven.Add(o.id, o)
	if !o.proven.Swap(true) {
		s.probing.Add(-o.Size())
	}
	return nil
}

// oust takes the queue's next in turn out, whatever its uses.
func (sh *shard) oust(probation bool) *Object {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, o, ok := sh.queue(probation).GetOldest()
	if !ok {
		return nil
	}
	sh.drop(o)
	return o
}

func (sh *shard) snapshot() []*Object {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return slices.Concat(sh.probation.Values(), sh.proven.Values())
}
