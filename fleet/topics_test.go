package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

func plain(c config.Fleet) config.Fleet { return c }

// heard collects what one subscriber is told.
type heard struct {
	mu   sync.Mutex
	list []string
}

func (h *heard) hear(data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, string(data))
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.list...)
}

func TestTopicsReachEveryOtherNodeInOrder(t *testing.T) {
	for name, secure := range map[string]func(config.Fleet) config.Fleet{"plain on loopback": plain, "mutual TLS": keyed} {
		t.Run(name, func(t *testing.T) {
			hub, one, two := threeNodes(t, secure)
			nodes := []*running{hub, one, two}
			ears := make([]*heard, len(nodes))
			for i, n := range nodes {
				ears[i] = &heard{}
				n.Subscribe("health", ears[i].hear)
			}
			for from, n := range nodes {
				untilHeard(t, n, ears, from)
			}
			const many = 300
			for i := range many {
				if err := one.Publish("health", fmt.Appendf(nil, "n%04d", i)); err != nil {
					t.Fatal(err)
				}
			}
			for _, to := range []int{0, 2} {
				checkOrder(t, ears[to], many)
			}
			for _, got := range ears[1].all() {
				if strings.HasPrefix(got, "n") || got == "from 1" {
					t.Fatalf("the sender heard itself: %q", got)
				}
			}
			if got, _ := gather(t, two.reg, "nearzone_fleet_messages_received_total"); got < many {
				t.Errorf("messages received = %v, want at least %d", got, many)
			}
		})
	}
}

// untilHeard publishes from one node until all others have heard it: interest spreads a moment after Subscribe.
func untilHeard(t *testing.T, n *running, ears []*heard, from int) {
	t.Helper()
	text := fmt.Sprintf("from %d", from)
	eventually(t, text+" is heard", func() bool {
		if err := n.Publish("health", []byte(text)); err != nil {
			t.Fatal(err)
		}
		for i, e := range ears {
			if i != from && !contains(e.all(), text) {
				return false
			}
		}
		return true
	})
}

func checkOrder(t *testing.T, h *heard, many int) {
	t.Helper()
	var got []string
	eventually(t, "all are heard", func() bool {
		got = got[:0]
		for _, s := range h.all() {
			if strings.HasPrefix(s, "n") {
				got = append(got, s)
			}
		}
		return len(got) >= many
	})
	for i, s := range got {
		if want := fmt.Sprintf("n%04d", i); s != want {
			t.Fatalf("message %d = %q, want %q", i, s, want)
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func TestSubscribeBeforeRunAndCancel(t *testing.T) {
	hub := start(t, "hub", fleet.Options{Config: config.Fleet{Listen: "127.0.0.1:0"}, Hub: true, Data: t.TempDir()})
	o := options("leaf", fleet.Options{Config: config.Fleet{Hub: []string{hub.Addr().String()}}})
	f, err := fleet.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	var before, gone heard
	f.Subscribe("digest", before.hear)
	cancel := f.Subscribe("digest", gone.hear)
	cancel()
	if err := f.Publish("digest", nil); err == nil {
		t.Error("Publish before Run succeeded")
	}
	runUntil(t, f, func() {
		eventually(t, "the early subscriber hears", func() bool {
			if err := hub.Publish("digest", []byte("x")); err != nil {
				t.Fatal(err)
			}
			return len(before.all()) > 0
		})
	})
	if got := gone.all(); len(got) != 0 {
		t.Errorf("a cancelled subscriber heard %q", got)
	}
	if err := f.Publish("digest", nil); err == nil {
		t.Error("Publish after Run succeeded")
	}
}

func TestSlowSubscriberLosesAndIsCounted(t *testing.T) {
	hub, one, _ := threeNodes(t, plain)
	release := make(chan struct{})
	one.Subscribe("flood", func([]byte) { <-release })
	load := make([]byte, 64<<10)
	eventually(t, "messages are dropped", func() bool {
		for range 200 {
			if err := hub.Publish("flood", load); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case release <- struct{}{}:
		default:
		}
		c, ok := gather(t, one.reg, "nearzone_fleet_messages_dropped_total")
		return ok && c > 0
	})
	close(release)
	if !one.Status().Connected {
		eventually(t, "the leaf is back", func() bool { return one.Status().Connected })
	}
}

func TestBadNamesAndSizes(t *testing.T) {
	f := start(t, "alone", fleet.Options{Lone: true})
	for _, name := range []string{"", "a.b", "a>", "*", "a b", "ü", strings.Repeat("a", 65)} {
		if err := f.Publish(name, nil); err == nil || !strings.Contains(err.Error(), "topic") {
			t.Errorf("Publish(%q) = %v, want an error that names the topic", name, err)
		}
		if _, err := f.Append(t.Context(), name, nil); err == nil {
			t.Errorf("Append(%q) succeeded", name)
		}
		if _, err := f.Head(t.Context(), name); err == nil {
			t.Errorf("Head(%q) succeeded", name)
		}
		if err := f.Follow(t.Context(), name, 0, nil); err == nil {
			t.Errorf("Follow(%q) succeeded", name)
		}
	}
	if err := f.Publish("big", make([]byte, fleet.MaxMessage+1)); err == nil {
		t.Error("a message over the limit was published")
	}
}

func TestLeafServesOnItsOwn(t *testing.T) {
	began := time.Now()
	f := start(t, "leaf", fleet.Options{Config: config.Fleet{Hub: []string{"127.0.0.1:1"}}})
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("ready after %v", took)
	}
	if err := f.Publish("health", []byte("x")); err != nil {
		t.Errorf("Publish while cut off: %v", err)
	}
	eventually(t, "the status says why", func() bool {
		st := f.Status()
		return !st.Connected && strings.Contains(st.Error, "127.0.0.1:1")
	})
	if c, _ := gather(t, f.reg, "nearzone_fleet_connected"); c != 0 {
		t.Errorf("connected = %v, want 0", c)
	}
}

func TestMetricNames(t *testing.T) {
	f := start(t, "alone", fleet.Options{Lone: true})
	if err := f.Publish("health", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append(t.Context(), "purge", []byte("x")); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(f.reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("metric names: %v %v", problems, err)
	}
}

func gather(t *testing.T, reg *prometheus.Registry, name string) (float64, bool) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		m := f.GetMetric()[0]
		return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
	}
	return 0, false
}

// TestPeersAreNodes: an operator is shown the names of nodes as the configuration has them.
func TestPeersAreNodes(t *testing.T) {
	t.Parallel()
	const hubName, leafName = "127.0.0.2:8080", "[2001:db8::1]:8080"
	hub := start(t, hubName, fleet.Options{Config: keyed(config.Fleet{Listen: "127.0.0.1:0"}), Hub: true, Data: t.TempDir()})
	leaf := start(t, leafName, fleet.Options{Config: keyed(config.Fleet{Hub: []string{hub.Addr().String()}})})
	eventually(t, "the leaf reaches the hub", func() bool { return leaf.Status().Connected && len(hub.Status().Peers) > 0 })
	if got := hub.Status().Peers; !slices.Equal(got, []string{leafName}) {
		t.Errorf("the hub's peers are %q, want %q", got, leafName)
	}
	if got := leaf.Status().Peers; !slices.Equal(got, []string{hubName}) {
		t.Errorf("the leaf's peers are %q, want %q", got, hubName)
	}
	mustAppend(t, leaf.Fleet, "purge", "by a node with dots in its name")
}
