package stream

import (
	"net"
	"sync"
	"time"
)

// avoidTime is how long a server that refused is passed over: long enough for a health check to find out, short
// enough that a restarted game server gets its players back soon.
const avoidTime = 5 * time.Second

// avoidance remembers servers that have refused a datagram. It is passive knowledge of this package only: whether a
// server is up is the health check's to say, but many UDP servers have none.
type avoidance struct {
	mu    sync.Mutex // guards until
	until map[string]time.Time
}

func newAvoidance() *avoidance { return &avoidance{until: map[string]time.Time{}} }

func (a *avoidance) add(server net.Addr, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s, t := range a.until { // no more than the servers of the configuration
		if now.After(t) {
			delete(a.until, s)
		}
	}
	a.until[server.String()] = now.Add(avoidTime)
}

func (a *avoidance) has(server net.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.until) == 0 {
		return false
	}
	return now.Before(a.until[server.String()])
}
