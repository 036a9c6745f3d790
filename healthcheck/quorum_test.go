package healthcheck_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearzone/nearzone/healthcheck"
)

const expire = 5 * time.Second

// fleet is a small world: nodes are named after their zone, "lax1" and "lax2" are of zone "lax".
type fleet struct {
	q   *healthcheck.Quorum
	seq map[string]uint64
}

func newFleet() *fleet {
	return &fleet{q: healthcheck.NewQuorum(expire, nil), seq: make(map[string]uint64)}
}

// say tells the quorum a view in short: the node, then its peers and its origins ("-name" is down or unreached,
// origins begin with "@").
func (f *fleet) say(node string, what ...string) {
	v := healthcheck.View{Node: node, Zone: strings.TrimRight(node, "0123456789"), Boot: 1,
		Peers: map[string]bool{}, Origins: map[string]bool{}}
	for _, w := range what {
		name, down := strings.CutPrefix(w, "-")
		if origin, is := strings.CutPrefix(name, "@"); is {
			v.Origins[origin] = !down
		} else {
			v.Peers[name] = !down
		}
	}
	f.seq[node]++
	v.Seq = f.seq[node]
	f.q.Observe(v, time.Now())
}

func (f *fleet) check(t *testing.T, origins []string, want map[string]bool) {
	t.Helper()
	for node, up := range want {
		if got := f.q.Up(node, origins); got != up {
			t.Errorf("Up(%s, %v) = %v, want %v; %+v", node, origins, got, up, f.q.Status(time.Now()))
		}
	}
}

func TestTwoZonesDownTheRegionHealthy(t *testing.T) {
	f := newFleet()
	f.say("lax1", "phx1", "pdx1") // said before it died, still fresh
	f.say("pdx1", "-lax1", "-phx1", "pdx2", "@app")
	f.say("pdx2", "-lax1", "-phx1", "pdx1", "@app")
	f.check(t, []string{"app"}, map[string]bool{"lax1": false, "pdx1": true, "pdx2": true})
	// lax still speaks well of phx until its view expires: a tie, and a tie is up.
	f.check(t, nil, map[string]bool{"phx1": true})
}

func TestDeadZonesLoseTheirVotesWhenTheirViewsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.say("lax1", "phx1", "pdx1")
		f.say("phx1", "lax1", "pdx1")
		time.Sleep(expire - time.Second)
		f.say("pdx1", "-lax1", "-phx1")
		f.check(t, nil, map[string]bool{"lax1": true, "phx1": true, "pdx1": true}) // ties
		time.Sleep(time.Second)                                                    // nothing is observed: Up notices by itself
		f.check(t, nil, map[string]bool{"lax1": false, "phx1": false, "pdx1": true})
		time.Sleep(expire)
		f.check(t, nil, map[string]bool{"lax1": true, "phx1": true, "pdx1": true}) // nobody speaks any more
		if s := f.q.Status(time.Now()); len(s) != 0 {
			t.Errorf("Status = %+v, want nothing", s)
		}
	})
}

func TestVotes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		views [][]string
		want  map[string]bool
	}{
		{"no view at all", nil, map[string]bool{"lax1": true}},
		{"one vote against", [][]string{{"pdx1", "-lax1"}}, map[string]bool{"lax1": false}},
		{"a tie is up", [][]string{{"pdx1", "-lax1"}, {"phx1", "lax1"}}, map[string]bool{"lax1": true}},
		{"a majority is down", [][]string{{"pdx1", "-lax1"}, {"phx1", "lax1"}, {"las1", "-lax1"}}, map[string]bool{"lax1": false}},
		{"one vote a zone, however many nodes", [][]string{
			{"pdx1", "-lax1"}, {"pdx2", "-lax1"}, {"pdx3", "-lax1"}, {"phx1", "lax1"}, {"las1", "lax1"},
		}, map[string]bool{"lax1": true}},
		{"the majority inside a zone is its vote", [][]string{
			{"pdx1", "-lax1"}, {"pdx2", "-lax1"}, {"pdx3", "lax1"},
		}, map[string]bool{"lax1": false}},
		{"a tie inside a zone is up", [][]string{{"pdx1", "-lax1"}, {"pdx2", "lax1"}}, map[string]bool{"lax1": true}},
		{"the own zone does not vote", [][]string{
			{"lax1", "lax2"}, {"lax2", "-lax1"}, {"lax3", "-lax1"}, {"pdx1", "lax1"},
		}, map[string]bool{"lax1": true, "lax2": true}},
		{"the own zone votes when nobody else does", [][]string{{"lax1", "-lax2"}, {"lax2"}}, map[string]bool{"lax2": false}},
		{"no node votes on itself", [][]string{{"lax1", "-lax1"}}, map[string]bool{"lax1": true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFleet()
			for _, v := range tc.views {
				f.say(v[0], v[1:]...)
			}
			f.check(t, nil, tc.want)
		})
	}
}

func TestOriginsByName(t *testing.T) {
	f := newFleet()
	f.say("lax1", "pdx1", "@app", "-@arena")
	f.say("pdx1", "lax1", "@app", "@arena")
	f.check(t, []string{"app"}, map[string]bool{"lax1": true, "pdx1": true})
	f.check(t, []string{"arena"}, map[string]bool{"lax1": false, "pdx1": true})
	f.check(t, []string{"app", "arena"}, map[string]bool{"lax1": false, "pdx1": true})
	f.check(t, []string{"app", "arena"}, map[string]bool{"stranger": true}) // by votes alone: none
	f.check(t, []string{"unheard of"}, map[string]bool{"lax1": true})
}

func TestEveryOriginDownBlamesNobody(t *testing.T) {
	f := newFleet()
	f.say("lax1", "phx1", "pdx1", "-@app")
	f.say("phx1", "lax1", "pdx1", "-@app")
	f.say("pdx1", "lax1", "phx1", "-@app")
	all := map[string]bool{"lax1": true, "phx1": true, "pdx1": true}
	f.check(t, []string{"app"}, all)
	f.say("pdx1", "lax1", "phx1", "@app") // one node reaches it: now it can be asked for
	f.check(t, []string{"app"}, map[string]bool{"lax1": false, "phx1": false, "pdx1": true})
	f.say("pdx1", "lax1", "phx1", "-@app")
	f.check(t, []string{"app"}, all)
}

func TestWhatADeadNodeReachesCountsForNothing(t *testing.T) {
	f := newFleet()
	f.say("lax1", "@app")
	f.say("phx1", "-lax1", "-@app")
	f.say("pdx1", "-lax1", "-@app")
	f.check(t, []string{"app"}, map[string]bool{"lax1": false, "phx1": true, "pdx1": true})
}

func TestNodeCutOffFromTheFleetIsJudgedByThoseWhoReachIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.say("lax1", "-phx1", "-pdx1", "-@app") // its last words: it sees nobody
		f.say("phx1", "lax1", "pdx1", "@app")
		f.say("pdx1", "lax1", "phx1", "@app")
		f.check(t, nil, map[string]bool{"lax1": true, "phx1": true, "pdx1": true})
		f.check(t, []string{"app"}, map[string]bool{"lax1": false})
		time.Sleep(expire)
		f.say("phx1", "lax1", "pdx1", "@app")
		f.say("pdx1", "lax1", "phx1", "@app")
		// Its view is gone: what it reached last is no longer held against it.
		f.check(t, []string{"app"}, map[string]bool{"lax1": true, "phx1": true, "pdx1": true})
	})
}

func TestDrainingNodeIsNotUp(t *testing.T) {
	q := healthcheck.NewQuorum(expire, nil)
	v := healthcheck.View{Node: "lax1", Zone: "lax", Boot: 1, Seq: 1, Draining: true}
	q.Observe(v, time.Now())
	if q.Up("lax1", nil) {
		t.Error("a draining node is up")
	}
	if s := q.Status(time.Now()); len(s) != 1 || !s[0].Draining || !s[0].Up {
		t.Errorf("Status = %+v, want one node, draining and alive", s)
	}
	v.Seq, v.Draining = 2, false
	q.Observe(v, time.Now())
	if !q.Up("lax1", nil) {
		t.Error("not up after its drain was undone")
	}
}

func TestOlderViewsAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := healthcheck.NewQuorum(expire, nil)
		tell := func(boot, seq uint64, up bool) {
			q.Observe(healthcheck.View{Node: "pdx1", Zone: "pdx", Boot: boot, Seq: seq, Peers: map[string]bool{"lax1": up}}, time.Now())
		}
		steps := []struct {
			boot, seq uint64
			says      bool
			want      bool
		}{
			{5, 10, true, true},
			{5, 9, false, true},  // late
			{5, 10, false, true}, // repeated
			{4, 99, false, true}, // of an earlier start
			{6, 1, false, false}, // it started again
			{5, 11, true, false},
		}
		for i, s := range steps {
			tell(s.boot, s.seq, s.says)
			if got := q.Up("lax1", nil); got != s.want {
				t.Errorf("step %d: up = %v, want %v", i, got, s.want)
			}
		}
		time.Sleep(expire) // a node whose clock went back is heard again once its old view has expired
		tell(1, 1, true)
		if s := q.Status(time.Now()); len(s) != 2 || s[1].Boot != 1 {
			t.Errorf("Status = %+v, want the view of boot 1", s)
		}
	})
}

func TestOnwardIsTheLeastOfTheZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := healthcheck.NewQuorum(expire, nil)
		tell := func(node string, seq uint64, rtt time.Duration) {
			q.Observe(healthcheck.View{Node: node, Zone: "lax", Boot: 1, Seq: seq, Onward: map[string]time.Duration{"app": rtt}}, time.Now())
		}
		tell("lax1", 1, 30*time.Millisecond)
		tell("lax2", 1, 20*time.Millisecond)
		tell("lax1", 2, 25*time.Millisecond) // round trips alone have changed
		if got, ok := q.Onward("lax", "app"); !ok || got != 20*time.Millisecond {
			t.Errorf("Onward = %v, %v, want 20ms", got, ok)
		}
		time.Sleep(expire / 2)
		tell("lax1", 3, 27*time.Millisecond)
		time.Sleep(expire / 2)
		if got, ok := q.Onward("lax", "app"); !ok || got != 27*time.Millisecond {
			t.Errorf("Onward after lax2 expired = %v, %v, want 27ms", got, ok)
		}
		if _, ok := q.Onward("phx", "app"); ok {
			t.Error("Onward of a zone that told nothing")
		}
	})
}

func TestStatusAndLogTellWhoVotes(t *testing.T) {
	var log bytes.Buffer
	q := healthcheck.NewQuorum(expire, slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Now()
	q.Observe(healthcheck.View{Node: "lax1", Zone: "lax", Boot: 1, Seq: 1, Origins: map[string]bool{"app": false}}, now)
	q.Observe(healthcheck.View{Node: "pdx1", Zone: "pdx", Boot: 1, Seq: 1, Peers: map[string]bool{"lax1": false}, Origins: map[string]bool{"app": true}}, now)
	q.Observe(healthcheck.View{Node: "phx1", Zone: "phx", Boot: 1, Seq: 1, Peers: map[string]bool{"lax1": false}}, now)
	got := q.Status(now)[0]
	want := healthcheck.NodeStatus{Node: "lax1", Zone: "lax", DownVotes: []string{"pdx", "phx"},
		Unreached: []string{"app"}, LastView: now, Boot: 1, Seq: 1}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("status = %+v, want %+v", got, want)
	}
	if n := strings.Count(log.String(), "node is down"); n != 1 || !strings.Contains(log.String(), "node=lax1") {
		t.Errorf("log = %q, want one line that lax1 is down", log.String())
	}
}

func TestQuorumUnderLoad(t *testing.T) {
	q := healthcheck.NewQuorum(time.Millisecond, nil) // so short that readers meet expiry all the time
	var wg sync.WaitGroup
	for _, node := range []string{"lax1", "phx1", "pdx1"} {
		wg.Go(func() {
			for seq := range uint64(300) {
				v := healthcheck.View{Node: node, Zone: node[:3], Boot: 1, Seq: seq, Peers: map[string]bool{"las1": seq%2 == 0}}
				q.Observe(v, time.Now())
			}
		})
		wg.Go(func() {
			for range 3000 {
				q.Up("las1", []string{"app"})
				q.Onward("lax", "app")
			}
		})
	}
	wg.Wait()
}

func TestUpDoesNotAllocate(t *testing.T) {
	f := newFleet()
	f.say("lax1", "pdx1", "@app")
	f.say("pdx1", "lax1", "@app")
	origins := []string{"app"}
	if n := testing.AllocsPerRun(100, func() { f.q.Up("lax1", origins) }); n != 0 {
		t.Errorf("Up allocates %v times", n)
	}
}

// Nodes that have gone for good, or never were, do not keep new ones from being heard.
func TestRoomForNewNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.say("pdx1", "-lax1", "lax2")
		f.say("lax1", "pdx1")
		for i := range 5000 {
			if i%100 == 0 {
				time.Sleep(expire)
				f.say("pdx1", "-lax1", "lax2")
			}
			f.q.Observe(healthcheck.View{Node: fmt.Sprintf("old%d", i), Zone: "old", Boot: 1, Seq: 1}, time.Now())
		}
		time.Sleep(expire)
		f.say("pdx1", "-lax1", "lax2")
		f.say("lax2", "-lax1")
		f.say("new1", "lax1", "-lax2", "pdx1", "@app")
		var told bool
		for _, s := range f.q.Status(time.Now()) {
			told = told || s.Node == "new1" && s.Zone == "new" && !s.LastView.IsZero()
			// Its own zone has no vote on it, although it has said nothing for long.
			if s.Node == "lax1" && (s.Zone != "lax" || len(s.DownVotes)+len(s.UpVotes) != 2) {
				t.Errorf("a node that is voted on: %+v, want the votes of pdx and new", s)
			}
		}
		if !told {
			t.Error("a new node is not heard")
		}
	})
}
