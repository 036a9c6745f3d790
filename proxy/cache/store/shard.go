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

// queue is the one to take from: the one asked for, or the other when that is empty.
func (sh *shard) queue(probation bool) *simplelru.LRU[uint64, *Object] {
	if probation && sh.probation.Len() > 0 || sh.proven.Len() == 0 {
		return sh.probation
	}
	return sh.proven
}

// oldest is the number of the object next to go: the lower, the older.
func (sh *shard) oldest(probation bool) uint64 {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if id, _, ok := sh.queue(probation).GetOldest(); ok {
		return id
	}
	return math.MaxUint64
}

// evict takes one object out and returns it, or nil when the shard is empty. An object on probation that was
// asked for again is proven instead; a proven one goes round once for every count it has left. Counts end at
// maxUses, so the loop ends after at most (maxUses+1) rounds of the shard.
func (sh *shard) evict(s *Store, probation bool) *Object {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for {
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
		sh.proven.Add(o.id, o)
		if !o.proven.Swap(true) {
			s.probing.Add(-o.Size())
		}
	}
}

func (sh *shard) snapshot() []*Object {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return slices.Concat(sh.probation.Values(), sh.proven.Values())
}
