package store

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// blockSize is the largest block: 256 KiB is four writes of a TLS connection's batch and wastes at most
	// that much of a body whose length nobody told.
	blockSize = 256 << 10
	// firstBlock begins a body of unknown length; each next block doubles.
	firstBlock = 4 << 10
	// Window is how far an unstored body may run ahead of its slowest reader.
	Window = 1 << 20
	// laggard is how long an unstored body waits for a reader that takes nothing while others would go on.
	laggard = 10 * time.Second
)

// Errors a reader or the writer of a body meets beside those of the origin.
var (
	ErrNoReaders = errors.New("store: nobody reads the unstored body any more")
	ErrTooSlow   = errors.New("store: reader held the others up")
)

// Body is the bytes of one response: blocks written once by one writer, and read while they come by any
// number of readers. Stored, it keeps every block and never waits for a reader. After [Body.Unstore] it drops
// what every reader has had and lets the writer run at most Window bytes ahead of the slowest.
type Body struct {
	store   *Store
	length  int64 // promised; -1 unknown
	refs    atomic.Int32
	charged atomic.Int64
	sealed  atomic.Bool // nothing changes any more, blocks may be read without the lock

	mu       sync.Mutex // guards everything below until sealed
	blocks   []block
	base     int64 // offset of blocks[0]
	size     int64 // bytes written
	unstored bool
	done     bool
	err      error // why done, nil for whole
	trailer  http.Header
	readers  map[*Reader]struct{}
	wake     chan struct{} // made by a reader that waits, closed by what it waits for
	room     chan struct{} // signalled by readers that moved on, for an unstored body's writer
}

type block struct {
	p       []byte // len is what was written
	charged int64
}

// NewBody makes an empty body of the length promised, -1 when unknown. The caller is its writer and holds a
// reference.
func (s *Store) NewBody(length int64) *Body {
	b := &Body{store: s, length: length, readers: map[*Reader]struct{}{}, room: make(chan struct{}, 1)}
	b.refs.Store(1)
	return b
}

// Length is the whole length, or -1 while nobody knows it.
func (b *Body) Length() int64 {
	if b.sealed.Load() {
		return b.size
	}
	return b.length
}

// Sealed reports whether the body is whole and stored.
func (b *Body) Sealed() bool { return b.sealed.Load() }

// Trailer is what came after the last byte. It is known when a reader has met io.EOF.
func (b *Body) Trailer() http.Header {
	if b.sealed.Load() {
		return b.trailer
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trailer
}

// Space is where the next bytes go: some free bytes at the end of the body, to be told by Grown. A stored
// body without room fails with ErrNoRoom, and may be unstored to go on. An unstored one waits here for its
// readers, until ctx ends.
func (b *Body) Space(ctx context.Context) ([]byte, error) {
	b.mu.Lock()
	if n := len(b.blocks); n > 0 && len(b.blocks[n-1].p) < cap(b.blocks[n-1].p) {
		defer b.mu.Unlock()
		last := b.blocks[n-1].p
		return last[len(last):cap(last)], nil
	}
	unstored, size := b.unstored, b.nextBlock()
	b.mu.Unlock()
	if unstored {
		if err := b.awaitRoom(ctx); err != nil {
			return nil, err
		}
		return b.addBlock(size, 0), nil
	}
	if !b.store.reserve(size) {
		return nil, ErrNoRoom
	}
	return b.addBlock(size, size), nil
}

// nextBlock sizes the next block: what is left of a known length, else twice the last one.
func (b *Body) nextBlock() int64 {
	if b.length >= 0 && b.length > b.size {
		return min(b.length-b.size, blockSize)
	}
	if b.length >= 0 {
		return 1 // to see that nothing follows
	}
	if n := len(b.blocks); n > 0 {
		return min(2*int64(cap(b.blocks[n-1].p)), blockSize)
	}
	return firstBlock
}

func (b *Body) addBlock(size, charge int64) []byte {
	b.charged.Add(charge)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blocks = append(b.blocks, block{p: make([]byte, 0, size), charged: charge})
	return b.blocks[len(b.blocks)-1].p[:size]
}

// Grown tells that n bytes of the last Space are there now.
func (b *Body) Grown(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := &b.blocks[len(b.blocks)-1]
	last.p = last.p[:len(last.p)+n]
	b.size += int64(n)
	b.wakeReaders()
}

// Seal ends a whole body. It may be put in the store if it was not unstored.
func (b *Body) Seal(trailer http.Header) {
	b.mu.Lock()
	b.trailer, b.done = trailer, true
	b.trim()
	if !b.unstored {
		b.readers = nil // from here on nobody waits for them
		b.sealed.Store(true)
	}
	b.wakeReaders()
	b.mu.Unlock()
}

// trim gives back the free bytes of the last block. Readers of the old copy keep it; the bytes are the same.
func (b *Body) trim() {
	n := len(b.blocks)
	if n == 0 || b.blocks[n-1].charged == 0 {
		return
	}
	last := &b.blocks[n-1]
	if waste := int64(cap(last.p) - len(last.p)); waste > 0 {
		last.p = append(make([]byte, 0, len(last.p)), last.p...)
		b.refund(last, waste)
	}
}

func (b *Body) refund(bl *block, n int64) {
	bl.charged -= n
	b.charged.Add(-n)
	b.store.release(n)
}

// Fail ends a body that will never be whole: readers get err after the bytes that came.
func (b *Body) Fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err, b.done = err, true
	b.wakeReaders()
}

// Unstore gives up keeping the body: no new reader can begin, and bytes that every reader has had are dropped.
func (b *Body) Unstore() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unstored = true
	b.dropRead()
}

// awaitRoom waits until the slowest reader is near enough. One that takes nothing for too long is cut off,
// unless it is alone: then it holds nobody up, and its own connection's deadlines apply.
func (b *Body) awaitRoom(ctx context.Context) error {
	timer := time.NewTimer(laggard)
	defer timer.Stop()
	for before := int64(-1); ; {
		b.mu.Lock()
		b.dropRead()
		readers, slowest := len(b.readers), b.slowest()
		behind := b.size - slowest
		if slowest != before {
			before = slowest
			timer.Reset(laggard)
		}
		b.mu.Unlock()
		switch {
		case readers == 0:
			return ErrNoReaders
		case behind < Window:
			return nil
		}
		select {
		case <-b.room:
		case <-timer.C:
			b.cutSlowest()
			timer.Reset(laggard)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// dropRead drops the blocks every reader is past. b.mu is held.
func (b *Body) dropRead() {
	for len(b.blocks) > 0 {
		first := &b.blocks[0]
		end := b.base + int64(len(first.p))
		if b.slowest() < end || len(first.p) < cap(first.p) {
			return
		}
		b.refund(first, first.charged)
		b.blocks = b.blocks[1:]
		b.base = end
	}
}

func (b *Body) slowest() int64 {
	pos := b.size
	for r := range b.readers {
		pos = min(pos, r.pos)
	}
	return pos
}

func (b *Body) cutSlowest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.readers) < 2 {
		return
	}
	pos := b.slowest()
	for r := range b.readers {
		if r.pos == pos {
			r.err = ErrTooSlow
			delete(b.readers, r)
		}
	}
	b.wakeReaders()
}

func (b *Body) wakeReaders() {
	if b.wake != nil {
		close(b.wake)
		b.wake = nil
	}
}

func (b *Body) acquire() { b.refs.Add(1) }

// Release gives a reference back. With the last one its blocks are free again.
func (b *Body) Release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	b.store.release(b.charged.Swap(0))
}
