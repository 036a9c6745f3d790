package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const (
	inLA  = "198.51.100.0/24"
	inPHX = "203.0.113.0/24"
)

func TestMissThenHitInEachZone(t *testing.T) {
	f := startFleet(t)
	for i, zone := range []string{lax, phx, home} {
		_, first, header := f.get(zone, "/a")
		if got := header.Get("Cache-Status"); !strings.Contains(got, "fwd=uri-miss") {
			t.Errorf("%s, first GET: Cache-Status %q, want fwd=uri-miss", zone, got)
		}
		code, second, header := f.get(zone, "/a")
		if got := header.Get("Cache-Status"); !strings.Contains(got, "hit") {
			t.Errorf("%s, second GET: Cache-Status %q, want hit", zone, got)
		}
		if code != http.StatusOK || first != second {
			t.Errorf("%s: %d %q after %q", zone, code, second, first)
		}
		if got := f.origin.requests.Load(); got != int64(i+1) {
			t.Errorf("%s: the origin saw %d requests, want %d", zone, got, i+1)
		}
	}
}

func TestMeasuredZoneIsAnswered(t *testing.T) {
	f := startFleet(t)
	f.observe("198.51.100.7", 12, map[string]time.Duration{lax: 7 * time.Millisecond, phx: 25 * time.Millisecond, home: 40 * time.Millisecond})
	f.observe("203.0.113.7", 12, map[string]time.Duration{lax: 25 * time.Millisecond, phx: 7 * time.Millisecond, home: 40 * time.Millisecond})
	f.eventually(15*time.Second, "each network is answered with its nearest zone", func() bool {
		return f.zoneOf(inLA) == lax && f.zoneOf(inPHX) == phx
	})
	e := f.explain("198.51.100.7")
	if e.Zone != lax || len(e.Candidates) != 3 || e.Why == "" {
		t.Errorf("explain: got %+v, want zone %s with three candidates and a reason", e, lax)
	}
	if words := f.command("explain", "--client", "198.51.100.7"); !strings.Contains(words, lax) || !strings.Contains(words, "ms") {
		t.Errorf("explain in words: %q", words)
	}
}

func TestDrainMovesClientsAndUndoBringsThemBack(t *testing.T) {
	f := startFleet(t)
	f.observe("198.51.100.7", 12, map[string]time.Duration{lax: 7 * time.Millisecond, phx: 25 * time.Millisecond, home: 40 * time.Millisecond})
	f.eventually(15*time.Second, "lax is answered", func() bool { return f.zoneOf(inLA) == lax })
	f.command("drain", lax)
	f.eventually(5*time.Second, "its clients move to the next best", func() bool { return f.zoneOf(inLA) == phx })
	if code, _, _ := f.get(lax, "/still"); code != http.StatusOK {
		t.Errorf("a drained zone answers those who are there: got %d", code)
	}
	f.command("drain", "--undo", lax)
	f.eventually(5*time.Second, "undo brings them back", func() bool { return f.zoneOf(inLA) == lax })
}

func TestDeadNodeLeavesTheAnswers(t *testing.T) {
	f := startFleet(t)
	f.observe("198.51.100.7", 12, map[string]time.Duration{lax: 7 * time.Millisecond, phx: 25 * time.Millisecond, home: 40 * time.Millisecond})
	f.eventually(15*time.Second, "lax is answered", func() bool { return f.zoneOf(inLA) == lax })
	f.kill(lax)
	died := time.Now()
	f.eventually(5*time.Second, "a dead node leaves the answers", func() bool { return f.zoneOf(inLA) == phx })
	t.Logf("last answer that named the dead node: %v after its end", time.Since(died).Round(time.Millisecond))
	f.kill(phx)
	f.eventually(5*time.Second, "with both Local Zones down the Region alone answers", func() bool { return f.zoneOf(inLA) == home })
	if e := f.explain("198.51.100.7"); e.Zone != home {
		t.Errorf("explain: got %s, want %s", e.Zone, home)
	}
}

func TestOriginDownBlamesNobody(t *testing.T) {
	f := startFleet(t)
	f.observe("198.51.100.7", 12, map[string]time.Duration{lax: 7 * time.Millisecond, phx: 25 * time.Millisecond, home: 40 * time.Millisecond})
	f.eventually(15*time.Second, "lax is answered", func() bool { return f.zoneOf(inLA) == lax })
	f.origin.serve(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) })
	f.eventually(5*time.Second, "every node sees the origin down", func() bool {
		for _, n := range f.nodes {
			if n.origins.Reachable()["app"] {
				return false
			}
		}
		return true
	})
	// Until the last node's view has arrived, one zone seems to reach what another does not.
	f.eventually(5*time.Second, "twenty answers in a row name lax: an origin that nobody reaches counts against no one", func() bool {
		for range 20 {
			if f.zoneOf(inLA) != lax {
				return false
			}
			<-time.After(50 * time.Millisecond)
		}
		return true
	})
}

func TestPurgeReachesEveryNode(t *testing.T) {
	f := startFleet(t)
	f.origin.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Surrogate-Key", "news sport")
		fmt.Fprint(w, f.origin.requests.Load())
	})
	zones := []string{lax, phx, home}
	for i, args := range [][]string{
		{"--url", "http://" + play + "/p"}, {"--prefix", "http://" + play + "/"}, {"--host", play}, {"--tag", "sport"}, {"--tag", "news", "--soft"},
	} {
		before := map[string]string{}
		for _, zone := range zones {
			_, before[zone], _ = f.get(zone, "/p")
		}
		f.command(append([]string{"purge"}, args...)...)
		for _, zone := range zones {
			f.eventually(5*time.Second, fmt.Sprintf("purge %d %v reaches %s", i, args, zone), func() bool {
				_, now, _ := f.get(zone, "/p")
				return now != before[zone]
			})
		}
	}
}

// The origin holds its last half until every client has its first byte, so that the proof does not depend on how fast
// this machine is: were a body delivered only when whole, nobody would ever get a byte.
func TestThunderingHerdIsOneRequest(t *testing.T) {
	f := startFleet(t)
	const clients, size = 200, 1 << 20
	var begun sync.WaitGroup
	begun.Add(clients)
	everyone := make(chan struct{})
	go func() { begun.Wait(); close(everyone) }()
	f.origin.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		half := strings.Repeat("x", size/2)
		<-time.After(300 * time.Millisecond)
		fmt.Fprint(w, half)
		w.(http.Flusher).Flush()
		select {
		case <-everyone:
		case <-time.After(8 * time.Second):
			t.Error("the origin was about to finish and some client had no byte yet")
		}
		fmt.Fprint(w, half)
	})
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			n, err := f.read(lax, "/herd", begun.Done)
			if n != size || err != nil {
				t.Errorf("client %d: %d bytes, want %d (%v)", i, n, size, err)
			}
		})
	}
	all.Wait()
	if got := f.origin.requests.Load(); got != 1 {
		t.Errorf("the origin saw %d requests, want 1", got)
	}
}

// read fetches a path, calls first at the first byte, or when there is none, and returns how many bytes came.
func (f *testFleet) read(zone, path string, first func()) (n int64, err error) {
	once := sync.OnceFunc(first)
	defer once()
	req, err := http.NewRequest(http.MethodGet, "http://"+f.http[zone]+path, nil)
	if err != nil {
		return 0, err
	}
	req.Host = play
	res, err := testClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, 1)); err != nil {
		return 0, err
	}
	once()
	n, err = io.Copy(io.Discard, res.Body)
	return n + 1, err
}

func TestMetricsAreWellNamed(t *testing.T) {
	f := startFleet(t)
	f.get(lax, "/m")
	f.ask(play, inLA)
	for zone, n := range f.nodes {
		problems, err := testutil.GatherAndLint(n.reg)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", zone, p.Metric, p.Text)
		}
		families, err := n.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			name := family.GetName()
			if !strings.HasPrefix(name, "nearzone_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				t.Errorf("%s: metric %s is neither ours nor the runtime's", zone, name)
			}
		}
	}
}
