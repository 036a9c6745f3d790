package fleet_test

import (
	"sync"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

// TestPanicCostsOneMessage: what one node sends reaches every other, and what is in a log reaches them again at each
// start. A message that brings out a fault must not take a whole fleet down, and keep it down.
func TestPanicCostsOneMessage(t *testing.T) {
	t.Parallel()
	hub, one, _ := threeNodes(t, func(c config.Fleet) config.Fleet { return c })
	var mu sync.Mutex
	var got []string
	take := func(data []byte) {
		if string(data) == "bad" {
			panic("a fault")
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(data))
	}
	has := func(what string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, g := range got {
				if g == what {
					return true
				}
			}
			return false
		}
	}
	hub.Subscribe("health", take)
	eventually(t, "the topic goes on after it", func() bool {
		_ = one.Publish("health", []byte("bad"))
		_ = one.Publish("health", []byte("topic"))
		return has("topic")()
	})
	mustAppend(t, one.Fleet, "purge", "bad")
	mustAppend(t, one.Fleet, "purge", "log")
	go func() { _ = hub.Follow(t.Context(), "purge", 0, func(_ uint64, data []byte) { take(data) }) }()
	eventually(t, "the log goes on after it", has("log"))
	if n, _ := gather(t, hub.reg, "nearzone_fleet_panics_total"); n < 2 {
		t.Errorf("panics_total = %v, want 2 at least", n)
	}

	lone := start(t, "lone", fleet.Options{Lone: true})
	mustAppend(t, lone.Fleet, "purge", "bad")
	mustAppend(t, lone.Fleet, "purge", "lone")
	go func() { _ = lone.Follow(t.Context(), "purge", 0, func(_ uint64, data []byte) { take(data) }) }()
	eventually(t, "a lone node's log goes on after it", has("lone"))
}
