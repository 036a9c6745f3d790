package cache

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// passiveKeys bounds the memory of keys whose answers cannot be shared, some 200 B each.
	passiveKeys = 1 << 14
	// passiveFor is how long nobody waits for such a key's fill. The first answer that can be shared ends it.
	passiveFor = time.Minute
	// generations is how finely the ends of fills are told apart by key.
	generations = 256
)

var errClosed = errors.New("cache: shutting down")

// fills is every fetch under way, and what those for one key have in common.
type fills struct {
	seed maphash.Seed
	// generation counts, by the key's hash, the fills that left byKey: who looked into the store before one
	// left and into byKey after must look into the store again. Written with mu held.
	generation [generations]atomic.Uint32

	mu      sync.Mutex // guards everything below
	byKey   map[string][]*fill
	live    map[*fill]struct{}
	closed  bool
	passive *simplelru.LRU[string, time.Time] // key -> until when

	group sync.WaitGroup
}

func newFills() *fills {
	passive, err := simplelru.NewLRU[string, time.Time](passiveKeys, nil)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return &fills{seed: maphash.MakeSeed(), byKey: map[string][]*fill{}, live: map[*fill]struct{}{}, passive: passive}
}

// generationOf is to be asked before the store is.
func (fs *fills) generationOf(key []byte) uint32 {
	return fs.generation[maphash.Bytes(fs.seed, key)%generations].Load()
}

// role is a client's part in a fill.
type role uint8

const (
	leads role = iota // began it
	waits             // came before the response's head
	reads             // came after: to this client it is a stored response, if one still growing
)

// join adds a client to a fill that serves its request too. When there is none, f is registered and the
// caller, who leads, must start it. It returns nil when the store must be asked again.
func (fs *fills) join(f *fill, generation uint32) (*fill, role) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if other, as := fs.find(f.key, &f.view); other != nil {
		return other, as
	}
	if fs.generation[fs.slot(f.key)].Load() != generation {
		return nil, waits
	}
	fs.byKey[f.key] = append(fs.byKey[f.key], f)
	f.listed = true
	fs.register(f)
	return f, leads
}

// lead registers f without letting anyone join it.
func (fs *fills) lead(f *fill) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.register(f)
}

// register counts f as under way. fs.mu is held.
func (fs *fills) register(f *fill) {
	fs.group.Add(1)
	fs.live[f] = struct{}{}
	if fs.closed {
		f.cancel(errClosed)
	}
}

// follow adds a client to a fill whose response is on its way already; nil: there is none.
func (fs *fills) follow(key string, v *View) *fill {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f, as := fs.find(key, v)
	if f != nil && as != reads {
		f.clients--
		return nil
	}
	return f
}

// find adds a client to a fill that serves v. fs.mu is held.
func (fs *fills) find(key string, v *View) (*fill, role) {
	for _, f := range fs.byKey[key] {
		if as, ok := f.admits(v); ok {
			f.clients++
			return f, as
		}
	}
	return nil, waits
}

// admits reports whether a request may wait for f, or read along, as far as anyone knows yet. fs.mu is held.
func (f *fill) admits(v *View) (role, bool) {
	select {
	case <-f.head: // with an object, or f would not be listed
		o := f.result.object
		u, _ := assess(v, o, f.c.now())
		return reads, u == useNow && selects(o.Vary, v.Header)
	default:
	}
	for _, name := range f.names {
		if selected(v.Header, name) != selected(f.view.Header, name) {
			return waits, false
		}
	}
	return waits, true
}

// leave takes a client, or the fill's own goroutine, off, and tells how many are left.
func (fs *fills) leave(f *fill) int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.clients--
	return f.clients
}

// unlist lets nobody join f from now on.
func (fs *fills) unlist(f *fill) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.drop(f)
}

func (fs *fills) drop(f *fill) {
	if !f.listed {
		return
	}
	f.listed = false
	fs.generation[fs.slot(f.key)].Add(1)
	list := fs.byKey[f.key]
	for i, other := range list {
		if other == f {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(fs.byKey, f.key)
	} else {
		fs.byKey[f.key] = list
	}
}

// doom keeps what is under way for key from being stored or joined: it left before its URL changed.
func (fs *fills) doom(key string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for f := range fs.live {
		if f.key == key {
			f.doomed.Store(true)
			fs.drop(f)
		}
	}
}

func (fs *fills) ended(f *fill) {
	fs.mu.Lock()
	fs.drop(f)
	delete(fs.live, f)
	fs.mu.Unlock()
	fs.group.Done()
}

// close cancels every fill and waits for their ends.
func (fs *fills) close() {
	fs.mu.Lock()
	fs.closed = true
	for f := range fs.live {
		f.cancel(errClosed)
	}
	fs.mu.Unlock()
	fs.group.Wait()
}

func (fs *fills) count() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.live)
}

// isPassive reports whether answers for key could not be shared lately, so that waiting for one is no use.
func (fs *fills) isPassive(key string, now time.Time) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	until, ok := fs.passive.Get(key)
	return ok && now.Before(until)
}

func (fs *fills) setPassive(key string, passive bool, now time.Time) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if passive {
		fs.passive.Add(key, now.Add(passiveFor))
	} else {
		fs.passive.Remove(key)
	}
}

func (fs *fills) slot(key string) uint64 { return maphash.String(fs.seed, key) % generations }
