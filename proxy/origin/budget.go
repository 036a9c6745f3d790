package origin

import (
	"sync/atomic"
	"time"
)

const (
	budgetWindow = 10 // seconds
	// budgetFloor retries a second are always allowed: with little traffic a share of it is nothing, and a
	// retry costs nothing either.
	budgetFloor = 3
	// budgetSlots is a power of two above the window, so that the slot being reused is never one that counts.
	budgetSlots = 16
)

// budget keeps retries to a share of the requests of the last ten seconds, so that an origin in trouble is not
// asked twice by everybody. It takes no lock: at the turn of a second a few requests may go uncounted.
type budget struct {
	share float64
	began time.Time
	slots [budgetSlots]budgetSlot
}

type budgetSlot struct{ second, requests, retries atomic.Int64 }

// slot is the one of now, emptied if it was last used in an earlier round.
func (b *budget) slot(now time.Time) (*budgetSlot, int64) {
	second := int64(now.Sub(b.began)/time.Second) + 1 // 0 is an unused slot
	s := &b.slots[second%budgetSlots]
	if old := s.second.Load(); old != second && s.second.CompareAndSwap(old, second) {
		s.requests.Store(0)
		s.retries.Store(0)
	}
	return s, second
}

// request counts one.
func (b *budget) request(now time.Time) {
	s, _ := b.slot(now)
	s.requests.Add(1)
}

// retry counts one if the budget has room for it.
func (b *budget) retry(now time.Time) bool {
	s, second := b.slot(now)
	var requests, retries int64
	for i := range b.slots {
		if at := b.slots[i].second.Load(); at > second-budgetWindow && at <= second {
			requests += b.slots[i].requests.Load()
			retries += b.slots[i].retries.Load()
		}
	}
	if float64(retries) >= max(b.share*float64(requests), budgetFloor*budgetWindow) {
		return false
	}
	s.retries.Add(1)
	return true
}
