package lab

import (
	"container/heap"
	"net/netip"
	"sync"
	"time"
)

// wire carries packets between hosts. It knows nothing of namespaces: packets come in by send and go out by the
// deliver function of each host.
type wire struct {
	mu    sync.Mutex // guards all below
	plan  *plan
	cut   map[string]bool
	out   map[string]func([]byte)
	queue queue
	seq   uint64
	last  map[[2]string]time.Time // delivery time of the latest packet, by direction
	wake  chan struct{}
}

// parcel is a packet under way.
type parcel struct {
	at   time.Time
	seq  uint64
	from string
	to   string
	data []byte
}

func newWire(p *plan) *wire {
	return &wire{
		plan: p, cut: map[string]bool{}, out: map[string]func([]byte){},
		last: map[[2]string]time.Time{}, wake: make(chan struct{}, 1),
	}
}

// send puts a copy of a packet on its way. What has no destination here is dropped, as on a real wire.
func (w *wire) send(from string, packet []byte, now time.Time) {
	dst, ok := destination(packet)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	to, ok := w.plan.find(dst)
	if !ok || w.cut[from] || w.cut[to] {
		return
	}
	delay, ok := w.plan.fate(from, to)
	if !ok {
		return
	}
	at, direction := now.Add(delay), [2]string{from, to}
	if last := w.last[direction]; at.Before(last) {
		at = last // jitter does not reorder
	}
	w.last[direction] = at
	w.seq++
	heap.Push(&w.queue, parcel{at, w.seq, from, to, append([]byte(nil), packet...)})
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run delivers packets when their time has come, until done is closed.
func (w *wire) run(done <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(w.deliver(time.Now()))
		select {
		case <-done:
			return
		case <-timer.C:
		case <-w.wake:
		}
	}
}

// deliver hands over what is due and says how long it is until the next packet is.
func (w *wire) deliver(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		if wait := w.queue[0].at.Sub(now); wait > 0 {
			return wait
		}
		p := heap.Pop(&w.queue).(parcel)
		if out := w.out[p.to]; out != nil && !w.cut[p.from] && !w.cut[p.to] {
			out(p.data)
		}
	}
	return time.Hour
}

// setCut cuts a host off, with what is on its way from and to it, or joins it again.
func (w *wire) setCut(host string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[host] = cut
}

func (w *wire) setPath(a, b string, change func(*path)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.plan.between(a, b)
	change(&v)
	w.plan.paths[ordered(a, b)] = v
}

// destination reads where an IP packet goes.
func destination(packet []byte) (netip.Addr, bool) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20])), true
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, false
}

// queue is a heap of parcels: the earliest first, those of one moment in the order they came.
type queue []parcel

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].seq < q[j].seq
	}
	return q[i].at.Before(q[j].at)
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(parcel)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = parcel{}
	*q = old[:len(old)-1]
	return last
}
