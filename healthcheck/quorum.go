package healthcheck

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxViews bounds the nodes a Quorum remembers; past it, nodes never heard of before are ignored until others have gone.
const maxViews = 4096

// Quorum merges the views of all nodes, its own among them, into the fleet's verdict on each node.
//
// Each zone has one vote on a node: that of the majority of its nodes that watch it, up when they tie. The zone
// of the node itself votes only when no other zone does, and no node votes on itself. A majority of the zones
// against it takes a node down; a tie does not. A view counts for a limited time after it came, so a node that
// is cut off from the fleet loses its votes, and is judged by those who still reach it.
type Quorum struct {
	expire   time.Duration
	log      *slog.Logger
	verdicts atomic.Pointer[verdicts]

	mu    sync.Mutex        // guards what is below; Up only ever tries it
	views map[string]seen   // by node, expired ones removed
	zones map[string]string // node -> its zone, also of nodes whose view has expired
}

type seen struct {
	View
	at time.Time
}

// NewQuorum makes a Quorum that nobody has told anything: every node is up. A view counts for expire.
func NewQuorum(expire time.Duration, log *slog.Logger) *Quorum {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	q := &Quorum{expire: expire, log: log, views: make(map[string]seen), zones: make(map[string]string)}
	q.verdicts.Store(&verdicts{})
	return q
}

// Observe takes a view. One that is not newer than what its node said before is ignored. now is the time of the
// real clock, which Up compares with.
func (q *Quorum) Observe(v View, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(now)
	old, known := q.views[v.Node]
	if known && !v.after(old.View) {
		return
	}
	if _, met := q.zones[v.Node]; !met && !q.room() {
		return
	}
	q.views[v.Node] = seen{v, now}
	q.zones[v.Node] = v.Zone
	if known && old.sameVerdicts(v) {
		q.refresh() // the usual case, once a node and second: only times have changed
		return
	}
	q.judge()
}

// room reports whether one more node can be remembered. When it would be one too many, those that have gone are
// forgotten: no view of theirs counts, and nobody votes on them.
func (q *Quorum) room() bool {
	if len(q.zones) < maxViews {
		return true
	}
	voted := q.verdicts.Load().nodes
	maps.DeleteFunc(q.zones, func(node, _ string) bool {
		_, counts := voted[node]
		return !counts // every node with a view has a verdict
	})
	return len(q.zones) < maxViews
}

// forget removes views that have expired and judges again without them.
func (q *Quorum) forget(now time.Time) {
	n := len(q.views)
	maps.DeleteFunc(q.views, func(_ string, s seen) bool { return now.Sub(s.at) >= q.expire })
	if len(q.views) != n {
		q.judge()
	}
}

// refresh publishes the verdicts as they are with new round trips and a new expiry.
func (q *Quorum) refresh() {
	next := *q.verdicts.Load()
	next.onward, next.until = onward(q.views), q.until()
	q.verdicts.Store(&next)
}

// judge publishes new verdicts and logs those that changed.
func (q *Quorum) judge() {
	next := count(q.views, q.zones)
	next.onward, next.until = onward(q.views), q.until()
	old := q.verdicts.Swap(next)
	for node, v := range next.nodes {
		was, known := old.nodes[node]
		switch down := v.down(); {
		case down && !was.down():
			q.log.Warn("node is down", "node", node, "zone", q.zones[node], "down_votes", v.against, "up_votes", v.inFavour)
		case !down && known && was.down():
			q.log.Info("node is up", "node", node, "zone", q.zones[node], "down_votes", v.against, "up_votes", v.inFavour)
		}
	}
}

// until is when the first view expires; zero without views.
func (q *Quorum) until() time.Time {
	var first time.Time
	for _, s := range q.views {
		if end := s.at.Add(q.expire); first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first
}

// current is the verdicts, judged again when a view has expired since. It never waits: while another goroutine
// judges, the old verdicts hold.
func (q *Quorum) current(now time.Time) *verdicts {
	v := q.verdicts.Load()
	if v.until.IsZero() || now.Before(v.until) || !q.mu.TryLock() {
		return v
	}
	defer q.mu.Unlock()
	q.forget(now)
	return q.verdicts.Load()
}

// Up reports whether the node can serve something that needs the origins: it is up by the votes, is not
// draining, and reaches, by its own view, each of the origins that any living node reaches. An origin that
// nobody reaches counts against no one; a node never heard of is judged by votes alone, and is up without any.
// It takes no lock worth the name and does not allocate.
func (q *Quorum) Up(node string, origins []string) bool {
	all := q.current(time.Now())
	v, known := all.nodes[node]
	if !known {
		return true
	}
	if v.down() || v.draining {
		return false
	}
	for _, origin := range origins {
		if reaches, told := v.origins[origin]; told && !reaches && all.reached[origin] {
			return false
		}
	}
	return true
}

// Onward is the least round trip from the nodes of a zone to an origin; false when none of them has told one.
func (q *Quorum) Onward(zone, origin string) (time.Duration, bool) {
	rtt, ok := q.current(time.Now()).onward[onwardKey{zone, origin}]
	return rtt, ok
}

// NodeStatus is the fleet's verdict on one node, for operators.
type NodeStatus struct {
	Node      string    `json:"node"`
	Zone      string    `json:"zone,omitempty"` // empty: never heard of
	Up        bool      `json:"up"`             // by the votes
	Draining  bool      `json:"draining"`
	UpVotes   []string  `json:"up_votes"`            // zones
	DownVotes []string  `json:"down_votes"`          // zones
	Unreached []string  `json:"unreached,omitempty"` // origins that others reach and this node does not
	LastView  time.Time `json:"last_view,omitzero"`  // zero: none that still counts
	Boot      uint64    `json:"boot,omitempty"`      // of that view
	Seq       uint64    `json:"seq,omitempty"`       // of that view
}

// Status lists every node that is voted on or has a view, sorted by node.
func (q *Quorum) Status(now time.Time) []NodeStatus {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(now)
	all := q.verdicts.Load()
	list := make([]NodeStatus, 0, len(all.nodes))
	for _, node := range slices.Sorted(maps.Keys(all.nodes)) {
		v, view := all.nodes[node], q.views[node]
		list = append(list, NodeStatus{
			Node: node, Zone: q.zones[node], Up: !v.down(), Draining: v.draining,
			UpVotes: slices.Clone(v.inFavour), DownVotes: slices.Clone(v.against),
			Unreached: all.unreached(v), LastView: view.at, Boot: view.Boot, Seq: view.Seq,
		})
	}
	return list
}
