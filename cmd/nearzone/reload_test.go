package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echo answers WebSocket upgrades with an echo and everything else with a cacheable page.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "%s from the origin\n", r.URL.Path)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}

func TestReloadUnderLoadCutsNobody(t *testing.T) {
	f := startFleet(t)
	f.origin.serve(echo)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+f.http[lax]+"/api/chat", &websocket.DialOptions{Host: play})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()

	var requests, connections atomic.Int64
	var load sync.WaitGroup
	for i := range 50 {
		load.Go(func() { hold(t, ctx, f.http[lax], i, &requests, &connections) })
	}
	for i := range 20 {
		f.write(fleetYAML + fmt.Sprintf("# edition %d\n", i))
		if i%2 == 1 { // every other reload changes a policy
			f.write(strings.Replace(fleetYAML, `cache: off`, `cache: off, max_body: 1MiB`, 1))
		}
		if err := f.nodes[lax].Reload(); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
		if err := ws.Write(ctx, websocket.MessageText, []byte("still here?")); err != nil {
			t.Fatalf("reload %d: WebSocket write: %v", i, err)
		}
		if _, data, err := ws.Read(ctx); err != nil || string(data) != "still here?" {
			t.Fatalf("reload %d: WebSocket read: %q %v", i, data, err)
		}
		<-time.After(20 * time.Millisecond)
	}
	cancel()
	load.Wait()
	if got := connections.Load(); got != 50 {
		t.Errorf("%d connections were made for 50 clients: some were cut", got)
	}
	t.Logf("%d requests over %d connections during 20 reloads", requests.Load(), connections.Load())
}

// hold asks on one connection until ctx ends.
func hold(t *testing.T, ctx context.Context, addr string, i int, requests, connections *atomic.Int64) {
	transport := &http.Transport{MaxIdleConnsPerHost: 1, MaxConnsPerHost: 1}
	transport.DialContext = countingDial(connections)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	for n := 0; ctx.Err() == nil; n++ {
		path := fmt.Sprintf("/page/%d", n%10)
		if n%5 == 4 {
			path = "/api/now"
		}
		req, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Host = play
		res, err := client.Do(req)
		if err != nil {
			t.Errorf("client %d: %v", i, err)
			return
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("client %d: %s %d %v", i, path, res.StatusCode, err)
			return
		}
		requests.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestBadConfigurationChangesNothing(t *testing.T) {
	f := startFleet(t)
	before := f.nodes[lax].config.Load()
	for _, bad := range []string{
		"", "sites: [", strings.Replace(fleetYAML, "origin: app", "origin: appp", 1),
		strings.Replace(fleetYAML, "home: us-west-2", "home: us-west-2-phx-2a", 1),
	} {
		f.write(bad)
		if err := f.nodes[lax].Reload(); err == nil {
			t.Errorf("reload took %.40q", bad)
		}
	}
	if f.nodes[lax].config.Load() != before {
		t.Error("a refused reload changed the configuration")
	}
	if code, _, _ := f.get(lax, "/after"); code != http.StatusOK {
		t.Errorf("after refused reloads: got %d", code)
	}
}
