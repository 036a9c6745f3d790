package store

import (
	"errors"
	"io"
)

// ErrGone means that the bytes asked for are no longer there: the body was unstored and has moved on.
var ErrGone = errors.New("store: the beginning of the body is gone")

// Reader follows one body from an offset to its end. It needs a reference on the object for as long as it
// reads, must be closed, and is for one goroutine.
type Reader struct {
	b    *Body
	pos  int64
	left int64 // bytes still wanted; -1: to the end

	// Where pos is, when the body is sealed and blocks stay where they are.
	block, off int
	found      bool

	err error // set by the body, under its lock
}

// Reader starts reading length bytes at offset; length -1 reads to the end. It fails with ErrGone when the
// body is unstored already.
func (b *Body) Reader(offset, length int64) (*Reader, error) {
	r := &Reader{b: b, pos: offset, left: length}
	if b.sealed.Load() {
		return r, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.sealed.Load(): // since we looked
		return r, nil
	case b.unstored:
		return nil, ErrGone
	}
	b.readers[r] = struct{}{}
	return r, nil
}

// Only narrows a reader that has not begun to length bytes at offset.
func (r *Reader) Only(offset, length int64) {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.pos, r.left = offset, length
}

// Next returns the bytes that came since, without waiting and without copying: they are never written again.
// When there are none yet it returns a channel that is closed by the next change. io.EOF ends a whole body
// or the length asked for.
func (r *Reader) Next() ([]byte, <-chan struct{}, error) {
	if r.left == 0 {
		return nil, nil, io.EOF
	}
	if r.b.sealed.Load() {
		p, err := r.nextSealed()
		return p, nil, err
	}
	return r.nextGrowing()
}

// nextSealed takes no lock: a sealed body does not change.
func (r *Reader) nextSealed() ([]byte, error) {
	if !r.found {
		r.block, r.off, r.found = 0, int(r.pos), true
	}
	blocks := r.b.blocks
	for r.block < len(blocks) && r.off >= len(blocks[r.block].p) {
		r.off -= len(blocks[r.block].p)
		r.block++
	}
	if r.block == len(blocks) {
		return nil, io.EOF
	}
	p := r.take(blocks[r.block].p[r.off:])
	r.off += len(p)
	return p, nil
}

func (r *Reader) nextGrowing() ([]byte, <-chan struct{}, error) {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.err != nil {
		return nil, nil, r.err
	}
	if p := b.at(r.pos); len(p) > 0 {
		p = r.take(p)
		r.moved()
		return p, nil, nil
	}
	if b.done {
		if b.err != nil {
			return nil, nil, b.err
		}
		return nil, nil, io.EOF
	}
	if b.wake == nil {
		b.wake = make(chan struct{})
	}
	return nil, b.wake, nil
}

// at finds the bytes from pos to the end of its block. b.mu is held.
func (b *Body) at(pos int64) []byte {
	start := b.base
	for _, bl := range b.blocks {
		if end := start + int64(len(bl.p)); pos < end {
			return bl.p[pos-start:]
		} else {
			start = end
		}
	}
	return nil
}

func (r *Reader) take(p []byte) []byte {
	if r.left >= 0 && int64(len(p)) > r.left {
		p = p[:r.left]
	}
	r.pos += int64(len(p))
	if r.left >= 0 {
		r.left -= int64(len(p))
	}
	return p[:len(p):len(p)]
}

// moved lets a writer that waits for readers look again. b.mu is held.
func (r *Reader) moved() {
	if r.b.unstored {
		select {
		case r.b.room <- struct{}{}:
		default:
		}
	}
}

// Close ends the reading. The bytes of the last Next stay readable.
func (r *Reader) Close() {
	if r.b.sealed.Load() {
		return
	}
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	delete(r.b.readers, r)
	r.moved()
}
