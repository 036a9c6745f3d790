package latency

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/nearzone/nearzone/routing"
)

// refreshBytes of each digest repeat what was told before, in turn. A small fleet is told whole every time, so a
// node that joins or missed a digest knows everything after one interval; a node with 65536 prefixes needs a
// hundred of them.
const refreshBytes = 16 << 10

// outbox is what Digest remembers between calls.
type outbox struct {
	mu   sync.Mutex // guards what follows
	seq  uint64
	next int // shard to repeat from
}

// Digest is what this node measured and has not told yet, and in turn what it has, for Merge on other nodes. It is
// nil when there is nothing to tell, and never longer than 256 KiB: what does not fit waits for the next.
func (e *Estimator) Digest() []byte {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	e.out.seq++
	zones := *e.zones.Load()
	w := newWriter(e.node, e.epoch, e.out.seq, zones)
	for i := range e.shards {
		e.write(w, i, maxDigest, func(c *cell) bool { return c.dirty })
	}
	limit := min(len(w.buf)+refreshBytes, maxDigest)
	for range e.shards {
		if len(w.buf) >= limit {
			break
		}
		e.write(w, e.out.next, limit, func(c *cell) bool { return c.sent != e.out.seq })
		e.out.next = (e.out.next + 1) % numShards
	}
	if w.n == 0 {
		return nil
	}
	b := w.done()
	e.m.sent.Add(float64(len(b)))
	return b
}

// write adds the cells of a shard that are wanted. A shard that is begun may go past limit, but not past what a
// digest holds.
func (e *Estimator) write(w *writer, shard, limit int, want func(*cell) bool) {
	if len(w.buf) >= limit {
		return
	}
	now := e.now()
	e.shards[shard].each(now, func(k key, c *cell) {
		// A zone met after the digest's list of zones was written waits for the next.
		if w.full() || !want(c) || int(k.zone) >= w.zones {
			return
		}
		w.entry(c.entry(k, now))
		c.dirty, c.sent = false, e.out.seq
	})
}

func (c *cell) entry(k key, now time.Time) entry {
	e := entry{zone: k.zone, addr: k.prefix.Addr(), mean: c.mean, n: c.n, age: time.Duration(now.UnixNano() - c.at)}
	if c.client.IsValid() {
		e.addr, e.client, e.seen = c.client, true, time.Duration(now.UnixNano()-c.seen)
	}
	return e
}

// Merge takes in a digest of another node. Digests may come late, twice or in any order: each cell of a node's run
// is replaced only by a later state of itself. A digest that is not sound is refused whole; this node's own are
// ignored, and what it told in an earlier run is welcome.
func (e *Estimator) Merge(b []byte) error {
	d, err := decode(b)
	if err != nil {
		e.m.digests.WithLabelValues("refused").Inc()
		return fmt.Errorf("merge digest of %d bytes: %w", len(b), err)
	}
	if d.node == e.node && d.epoch == e.epoch {
		e.m.digests.WithLabelValues("own").Inc()
		return nil
	}
	e.m.dropped.Add(float64(e.peers.merge(d, e.now())))
	e.m.digests.WithLabelValues("merged").Inc()
	return nil
}

// maxSnapshots bounds the runs of nodes that are remembered; the one not heard of for longest goes first.
const maxSnapshots = 512

// peers is what the fleet told us.
type peers struct {
	mu        sync.Mutex // guards what follows
	snapshots map[origin]*snapshot
	size, max int // cells in all snapshots
}

// origin is one run of one node. A node that starts again does not know what it measured before, so its runs are
// kept apart and each fades by itself.
type origin struct {
	node  string
	epoch uint64
}

type snapshot struct {
	heard int64 // unix ns
	cells map[peerKey]remote
}

type peerKey struct {
	prefix netip.Prefix
	zone   string
}

// remote is the last known state of a cell of another node.
type remote struct {
	seq     uint64
	mean, n float64
	at      int64 // unix ns by our clock
	client  netip.Addr
	seen    int64
}

func (r remote) weight(now time.Time) float64 { return decay(r.n, r.at, now.UnixNano()) }

// merge returns how many cells had to be dropped for want of room.
func (p *peers) merge(d digest, now time.Time) (dropped int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.snapshot(origin{d.node, d.epoch}, now)
	for _, e := range d.entries {
		k := peerKey{routing.PrefixOf(e.addr), d.zones[e.zone]}
		old, known := s.cells[k]
		if known && old.seq >= d.seq {
			continue
		}
		if !known && p.size >= p.max {
			dropped++
			evict(p.largest().cells, func(r remote) float64 { return r.weight(now) })
			p.size--
		}
		if !known {
			p.size++
		}
		s.cells[k] = e.remote(d.seq, now)
	}
	return dropped
}

func (e entry) remote(seq uint64, now time.Time) remote {
	r := remote{seq: seq, mean: e.mean, n: e.n, at: now.Add(-e.age).UnixNano()}
	if e.client {
		r.client, r.seen = e.addr, now.Add(-e.seen).UnixNano()
	}
	return r
}

func (p *peers) snapshot(o origin, now time.Time) *snapshot {
	s := p.snapshots[o]
	if s == nil {
		if len(p.snapshots) >= maxSnapshots {
			p.forget()
		}
		s = &snapshot{cells: map[peerKey]remote{}}
		p.snapshots[o] = s
	}
	s.heard = now.UnixNano()
	return s
}

// largest is the snapshot with most cells, which gives way when there is no room: a node that is new, or was started
// again, finds some however much the others have told.
func (p *peers) largest() *snapshot {
	var most *snapshot
	for _, s := range p.snapshots {
		if most == nil || len(s.cells) > len(most.cells) {
			most = s
		}
	}
	return most
}

// forget drops the snapshot not heard of for longest.
func (p *peers) forget() {
	var oldest origin
	var when int64
	for o, s := range p.snapshots {
		if oldest == (origin{}) || s.heard < when {
			oldest, when = o, s.heard
		}
	}
	p.size -= len(p.snapshots[oldest].cells)
	delete(p.snapshots, oldest)
}

// each calls f, under the lock, with every cell that still means something, drops the others and what is left
// empty, and returns how many are left.
func (p *peers) each(now time.Time, f func(prefix netip.Prefix, zone string, r remote)) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for o, s := range p.snapshots {
		for k, r := range s.cells {
			if r.weight(now) < minN {
				delete(s.cells, k)
				p.size--
				continue
			}
			f(k.prefix, k.zone, r)
		}
		if len(s.cells) == 0 {
			delete(p.snapshots, o)
		}
	}
	return p.size
}
