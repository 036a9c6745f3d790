package fleet_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

// hubOfThree starts a hub of three nodes on loopback.
func hubOfThree(t *testing.T) ([]fleet.Options, []*running) {
	t.Helper()
	addrs := freePairs(t, 3)
	all := make([]fleet.Options, 3)
	for i, a := range addrs {
		all[i] = fleet.Options{Config: keyed(config.Fleet{Listen: a, Hub: addrs}), Hub: true, Data: t.TempDir()}
	}
	nodes := make([]*running, 3)
	for i, o := range all {
		nodes[i] = start(t, fmt.Sprintf("10.0.0.%d:8080", i+1), o)
	}
	return all, nodes
}

// freePairs finds ports of which the next one is free too, below those that outgoing connections take.
func freePairs(t *testing.T, n int) []string {
	t.Helper()
	var found []string
	for len(found) < n {
		port := 16384 + 2*rand.IntN(8000)
		a, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer a.Close()
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err != nil {
			continue
		}
		defer b.Close()
		found = append(found, a.Addr().String())
	}
	return found
}

// TestHubOfThreeSurvivesOne restarts each hub node in turn while a leaf appends.
func TestHubOfThreeSurvivesOne(t *testing.T) {
	t.Parallel()
	all, hubs := hubOfThree(t)
	leaf := start(t, "leaf", fleet.Options{Config: keyed(config.Fleet{Hub: all[0].Config.Hub}), Data: t.TempDir()})
	eventually(t, "the leaf can append", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := leaf.Append(ctx, "purge", []byte("first"))
		return err == nil
	})
	r := follow(t, leaf.Fleet, "purge", 0)
	var mu sync.Mutex
	acked := map[string]uint64{}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
	quit := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			entry := fmt.Sprint(i)
			if seq, err := leaf.Append(context.Background(), "purge", []byte(entry)); err == nil {
				mu.Lock()
				acked[entry] = seq
				mu.Unlock()
			}
		}
	})
	for i := range hubs {
		hubs[i].stop()
		before := count()
		eventually(t, "two hub nodes go on", func() bool { return count() > before+5 })
		hubs[i] = start(t, fmt.Sprintf("10.0.0.%d:8080", i+1), all[i])
		eventually(t, "the third is back", func() bool { return hubs[i].Status().Connected })
	}
	close(quit)
	writer.Wait()
	head, err := leaf.Head(t.Context(), "purge")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reader reaches the head", func() bool { return r.last() >= head })
	checkSeen(t, 0, r, acked)
	t.Logf("%d entries acknowledged, head %d", len(acked), head)
}
