package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node that is told to stop is named no more, answers those who come all the same, and then ends.
func TestLeavingNodeIsNamedNoMoreAndStillAnswers(t *testing.T) {
	f := startFleetOf(t, strings.Replace(fleetYAML, "answers: 0s", "answers: 20s", 1))
	f.observe("198.51.100.7", 12, map[string]time.Duration{lax: 7 * time.Millisecond, phx: 25 * time.Millisecond, home: 40 * time.Millisecond})
	f.eventually(15*time.Second, "lax is answered", func() bool { return f.zoneOf(inLA) == lax })
	ctx, cut := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() { defer close(left); f.nodes[lax].leave(ctx) }()
	f.eventually(3*time.Second, "DNS stops naming the node that leaves", func() bool { return f.zoneOf(inLA) == phx })
	if code, _, _ := f.get(lax, "/late"); code != http.StatusOK {
		t.Errorf("a node that leaves answers those who come: got %d", code)
	}
	if err := f.nodes[lax].ready(); err == nil {
		t.Error("a node that leaves says it is ready")
	}
	cut()
	<-left
	res, err := testClient.Get("http://" + f.http[lax] + "/.nearzone/health")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("health of a node whose doors are closing: got %d, want 503", res.StatusCode)
	}
}

// The zone nodes serve, and answer for their health, while the hub is away; a purge then fails loudly instead of being
// taken and lost.
func TestHubAwayServesOn(t *testing.T) {
	f := startFleet(t)
	f.get(lax, "/kept")
	f.kill(home)
	for range 5 {
		if code, _, header := f.get(lax, "/kept"); code != http.StatusOK || !strings.Contains(header.Get("Cache-Status"), "hit") {
			t.Errorf("with the hub away: got %d, Cache-Status %q", code, header.Get("Cache-Status"))
		}
	}
	if code, _, _ := f.get(phx, "/new"); code != http.StatusOK {
		t.Errorf("a miss with the hub away: got %d", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := f.nodes[lax].purge(ctx, []byte(`{"host": "play.example.com"}`)); err == nil {
		t.Error("a purge was taken although the hub that keeps the log is away")
	} else {
		t.Logf("purge with the hub away: %v", err)
	}
}

// A hub that lost its disk has lost purges and drains. Nodes that were there ask the origin again for what they stored,
// and give the hub its drains back.
func TestHubThatLostItsLogs(t *testing.T) {
	f := startFleet(t)
	f.command("drain", phx)
	f.command("purge", "--tag", "any")
	f.get(lax, "/kept")
	f.eventually(5*time.Second, "lax knows the drain and the purge", func() bool {
		return f.nodes[lax].drained.has(phx, "") && f.nodes[lax].cache.Stats().Purge > 0
	})
	f.get(lax, "/kept")
	f.kill(home)
	if err := os.RemoveAll(filepath.Join(f.env["DATA"], home)); err != nil {
		t.Fatal(err)
	}
	f.start(home)
	f.eventually(30*time.Second, "the hub has its drain back", func() bool { return f.nodes[home].drained.has(phx, "") })
	f.eventually(10*time.Second, "lax asks the origin again for what it stored", func() bool {
		_, _, header := f.get(lax, "/kept")
		return strings.Contains(header.Get("Cache-Status"), "fwd=stale")
	})
}

// A start that fails half-way leaves nothing bound: the hub's port least of all.
func TestFailedStartReleasesEverything(t *testing.T) {
	f := startFleet(t)
	f.kill(home)
	held, err := net.Listen("tcp", f.admin) // the last socket that a node binds
	if err != nil {
		t.Fatal(err)
	}
	cfg := f.nodes[home].config.Load()
	if _, err := newNode(cfg, nodeOptions{Log: testLog(t)}); err == nil {
		t.Fatal("a node started although its admin port is held")
	}
	held.Close()
	for _, at := range []string{cfg.Listen.HTTP, cfg.Fleet.Listen, f.dns} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Errorf("%s is still held after a failed start: %v", at, err)
			continue
		}
		l.Close()
	}
	f.start(home)
}
