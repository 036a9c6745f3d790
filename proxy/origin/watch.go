package origin

import (
	"sync"
	"sync/atomic"
	"time"
)

// watch ends an exchange in which no byte has moved for idle, in either direction, while somebody waits for one.
// A reader who takes his time is not idle: time counts only between wait and done.
//
// One timer runs for the whole exchange and looks once per idle; moving a byte costs one atomic store.
type watch struct {
	idle   time.Duration // 0: no limit
	expire func()
	began  time.Time
	last   atomic.Int64 // of the last byte, in nanoseconds since began
	waits  atomic.Int32 // who waits for a byte now
	fired  atomic.Bool

	mu    sync.Mutex // guards timer
	timer *time.Timer
}

// start begins to watch; a second start does nothing.
func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle > 0 && w.timer == nil {
		w.timer = time.AfterFunc(w.idle, w.look)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.idle = 0 // a look that is under way does not start it again
}

func (w *watch) touch() { w.last.Store(int64(time.Since(w.began))) }

func (w *watch) wait() {
	w.touch()
	w.waits.Add(1)
}

func (w *watch) done() {
	w.touch()
	w.waits.Add(-1)
}

// look is run by the timer.
func (w *watch) look() {
	if w.lookAgain() {
		return
	}
	w.fired.Store(true)
	w.expire()
}

// lookAgain sets the timer anew unless the exchange has been silent too long.
func (w *watch) lookAgain() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle == 0 {
		return true
	}
	left := w.idle - (time.Since(w.began) - time.Duration(w.last.Load()))
	if w.waits.Load() == 0 {
		left = w.idle
	}
	if left > 0 {
		w.timer.Reset(left)
	}
	return left > 0
}
