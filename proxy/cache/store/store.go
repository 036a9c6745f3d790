// Package store keeps stored responses in memory within one budget of bytes.
//
// An [Object] is a head, never changed once made, and a [Body] of blocks that grows while its one writer
// fills it and that any number of readers follow. Objects with the same key are variants of each other. The
// store knows neither HTTP nor freshness: package cache decides what an object may be used for.
//
// Everything counts against the budget: body blocks when they are made (those of fills under way included),
// head, key and bookkeeping when the object is put. The budget is never exceeded: when nothing can be
// evicted, [Body.Space] and [Store.Put] fail and the response goes on unstored. An object that is evicted or
// replaced while somebody reads it stays charged until the last reader lets go.
//
//	b := s.NewBody(resp.ContentLength)
//	o := s.NewObject(key, head, b)
//	p, err := b.Space(ctx) // read into p, b.Grown(n), again and again; then b.Seal(trailer)
//	err = s.Put(o)
//	for _, o := range s.Variants(key) { if o.Acquire() { …; o.Release() } }
package store

import (
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// shards are locks alone, never budgets: splitting the bytes too would cost hits
	// (16 shards with own budgets took web byte misses at 1 % of the footprint from .226 to .319).
	shards = 64
	// maxVariants bounds what a Vary on a header full of entropy may take under one key. Past it the
	// oldest variant goes.
	maxVariants = 32
	// probationShare is the part of the bytes that objects not yet asked for again may hold before they
	// are the first to go: 20 % keeps recency-heavy download traffic at tiny budgets (10 % loses .045 there).
	probationShare = 0.20
	// patience is how many objects in turn may be given another round before one goes whatever its uses: with
	// every object used maxUses times, and two shards looked at each time, more than enough to find one of a
	// few hundred, and 64 look-ups of some 100 ns at worst.
	patience = 64
	// largestShare is the part of the budget one body may take: a larger one would empty the store.
	largestShare = 0.25
)

// ErrNoRoom means that the budget is full and nothing can be evicted.
var ErrNoRoom = errors.New("store: no room within the memory budget")

// Store is the memory tier. All methods may be called concurrently.
type Store struct {
	budget  int64
	used    atomic.Int64 // blocks and heads charged
	objects atomic.Int64
	probing atomic.Int64 // bytes of objects on probation
	seed    maphash.Seed
	turns   atomic.Uint64 // given out to objects as they queue
	shards  [shards]shard
	metrics *metrics
}

// Stats is a moment of the store.
type Stats struct {
	Objects   int64 `json:"objects"`
	Bytes     int64 `json:"bytes"` // charged now, fills under way included
	Budget    int64 `json:"budget"`
	Evictions int64 `json:"evictions"`
}

// New makes a store of so many bytes, metrics registered on reg; reg may be nil.
func New(memory int64, reg prometheus.Registerer) *Store {
	s := &Store{budget: max(memory, 0), seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].init()
	}
	s.metrics = newMetrics(reg, s)
	return s
}

// Variants lists the objects under a key, newest first. The slice must not be changed; its objects must be
// acquired before use, for they may be evicted at any time.
func (s *Store) Variants(key []byte) []*Object {
	sh := &s.shards[maphash.Bytes(s.seed, key)%shards]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.index[string(key)] // compiled without an allocation
}

// Put makes o findable, in place of the objects under its key with the same variant, and charges its head.
// Its body must be sealed. The store takes a reference of its own.
func (s *Store) Put(o *Object) error {
	if !o.charge() {
		return ErrNoRoom
	}
	if !o.Acquire() {
		panic("store: put of a released object")
	}
	o.id = s.turns.Add(1)
	o.turn = o.id
	gone := s.shard(o.Key).put(o)
	s.account(o, +1)
	s.forget(gone)
	return nil
}

// Remove takes o out, if it is still in. Readers keep what they have.
func (s *Store) Remove(o *Object) {
	if s.shard(o.Key).remove(o) {
		s.forget([]*Object{o})
	}
}

// RemoveKey takes every variant under key out and tells how many there were.
func (s *Store) RemoveKey(key string) int {
	gone := s.shard(key).removeKey(key)
	s.forget(gone)
	return len(gone)
}

// Walk calls visit with every object, acquired for the call alone, and stops when visit returns false. No lock is held meanwhile,
// so objects that come or go during the walk may be visited or not.
func (s *Store) Walk(visit func(*Object) bool) {
	for i := range s.shards {
		for _, o := range s.shards[i].snapshot() {
			if !o.Acquire() {
				continue
			}
			more := visit(o)
			o.Release()
			if !more {
				return
			}
		}
	}
}

// Stats tells the numbers of this moment.
func (s *Store) Stats() Stats {
	return Stats{Objects: s.objects.Load(), Bytes: s.used.Load(), Budget: s.budget, Evictions: s.metrics.evicted.Load()}
}

// Largest is the size of the largest body worth storing here.
func (s *Store) Largest() int64 { return int64(largestShare * float64(s.budget)) }

func (s *Store) shard(key string) *shard {
	return &s.shards[maphash.String(s.seed, key)%shards]
}

// reserve charges n bytes, evicting as needed, and reports whether they fit. No lock may be held.
func (s *Store) reserve(n int64) bool {
	for n <= s.budget {
		used := s.used.Load()
		if used+n <= s.budget {
			if s.used.CompareAndSwap(used, used+n) {
				return true
			}
			continue
		}
		if !s.evict() {
			return false
		}
	}
	return false
}

func (s *Store) release(n int64) { s.used.Add(-n) }

// evict takes one object out. It looks at the worse of two random shards' next in turn, again and again while
// those have earned another round; then at any shard's. False: there is no object at all.
func (s *Store) evict() bool {
	for range patience {
		probation := float64(s.probing.Load()) > probationShare*float64(s.budget)
		worse, other := &s.shards[rand.IntN(shards)], &s.shards[rand.IntN(shards)]
		if other.oldest(probation) < worse.oldest(probation) {
			worse = other
		}
		if s.expel(worse.next(s, probation)) {
			return true
		}
	}
	for _, probation := range []bool{true, false} {
		for i, start := 0, rand.IntN(shards); i < shards; i++ {
			if s.expel(s.shards[(start+i)%shards].oust(probation)) {
				return true
			}
		}
	}
	return false
}

func (s *Store) expel(victim *Object) bool {
	if victim == nil {
		return false
	}
	s.metrics.evicted.Add(1)
	s.forget([]*Object{victim})
	return true
}

// forget drops the store's references, after the shard's lock was let go.
func (s *Store) forget(gone []*Object) {
	for _, o := range gone {
		s.account(o, -1)
		o.Release()
	}
}

func (s *Store) account(o *Object, sign int64) {
	s.objects.Add(sign)
	if sign > 0 || !o.proven.Load() {
		s.probing.Add(sign * o.Size())
	}
}
