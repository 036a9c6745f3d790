package store

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// overhead is charged for each object beside its bytes: the structs, list and map entries (golang-lru
	// costs 118 to 168 B an entry, the index about 100).
	overhead = 512
	// maxUses is where the count of uses ends: an object once hot must not live on its past.
	maxUses = 3
)

// Selector is one request header that chose the response: a field its Vary names, and the value it had.
type Selector struct{ Name, Value string }

// Head is all of a stored response but its body. It is never changed once the object is made; a 304 makes a
// new object with the same body.
type Head struct {
	Status int
	Header http.Header // without hop-by-hop fields; Date always there
	Wire   []byte      // Header as lines ending in CRLF, made by NewObject
	Vary   []Selector  // empty: the response is for every request of its key
	Tags   []string    // what it can be purged by

	Sent, Received time.Time     // when the request left and when this head (or the 304 that updated it) came
	Age            time.Duration // at Received
	Lifetime       time.Duration // from Age zero; 0: must be validated before each use
	Revalidate     time.Duration // how long past Lifetime it may be used while it is validated
	IfError        time.Duration // how long past Lifetime it may be used when the origin fails
	NoCache        bool          // must be validated before each use, fresh or not
	NoStale        bool          // must not be used past Lifetime without validation (must-revalidate and its kin)
	Implicit       bool          // its origin did not say that it may be shared for a time: not for requests that carry a Cookie

	// Position is the purge position this node had applied when the request that produced (or last validated)
	// the response left for the origin. Only later purges concern it.
	Position uint64
}

// Object is one stored response, reference counted.
type Object struct {
	Key     string
	Variant string // names Head.Vary; equal variants replace each other
	Head
	Body *Body

	// Cleared is the purge position up to which no purge concerned the object; never less than Position.
	Cleared atomic.Uint64
	// StaleAt is when a soft purge made it stale, in Unix nanoseconds; 0: none did.
	StaleAt atomic.Int64
	// RetryAt is when to ask a failing origin again, in Unix nanoseconds; until then it may serve stale at once.
	RetryAt atomic.Int64

	store   *Store
	id      uint64 // set by Put
	turn    uint64 // where in its queue; guarded by the shard
	uses    atomic.Int32
	proven  atomic.Bool
	refs    atomic.Int32
	charged atomic.Bool
}

// NewObject joins a head and a body under key. The caller holds the one reference there is; the object takes
// one on the body. Nothing is charged for the head before Put.
func (s *Store) NewObject(key string, h Head, b *Body) *Object {
	h.Wire = wire(h.Header)
	o := &Object{Key: key, Variant: variant(h.Vary), Head: h, Body: b, store: s}
	o.Cleared.Store(h.Position)
	o.refs.Store(1)
	b.acquire()
	return o
}

// Size is what the object costs the budget, body included.
func (o *Object) Size() int64 { return o.headCost() + o.Body.charged.Load() }

// Acquire takes a reference. It reports false when the object is gone for good.
func (o *Object) Acquire() bool {
	for {
		n := o.refs.Load()
		if n == 0 {
			return false
		}
		if o.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Used counts a use, which keeps the object from eviction for longer.
func (o *Object) Used() {
	if n := o.uses.Load(); n < maxUses {
		o.uses.CompareAndSwap(n, n+1)
	}
}

// Release gives a reference back. With the last one the bytes are free again.
func (o *Object) Release() {
	switch n := o.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("store: object released more often than acquired")
	}
	if o.charged.Load() {
		o.store.release(o.headCost())
	}
	o.Body.Release()
}

// worth is the count of uses a successor begins with: a response that was asked for again does not go back to
// probation because it was validated.
func (o *Object) worth() int32 {
	if o.proven.Load() {
		return maxUses
	}
	return o.uses.Load()
}

func (o *Object) spend() bool {
	n := o.uses.Load()
	return n > 0 && o.uses.CompareAndSwap(n, n-1)
}

func (o *Object) charge() bool {
	if !o.store.reserve(o.headCost()) {
		return false
	}
	o.charged.Store(true)
	return true
}

// headCost counts the header twice: once as lines, once as a map of strings.
func (o *Object) headCost() int64 {
	n := overhead + 2*len(o.Wire) + len(o.Key) + len(o.Variant)
	for _, t := range o.Tags {
		n += len(t) + 16
	}
	return int64(n)
}

func variant(vary []Selector) string {
	var b strings.Builder
	for _, s := range vary {
		b.WriteString(s.Name)
		b.WriteByte(':')
		b.WriteString(s.Value)
		b.WriteByte('\n') // in no header value
	}
	return b.String()
}

func wire(h http.Header) []byte {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	var b []byte
	for _, name := range names {
		for _, v := range h[name] {
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	return b
}
