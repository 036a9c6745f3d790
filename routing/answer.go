package routing

import (
	"net/netip"
	"slices"
)

// Live is what changes faster than tables are built.
type Live struct {
	Up      func(node string, origins []string) bool // nil: every node is
	Drained func(zone, node string) bool             // nil: none is
}

// exploreBand and exploreFew bound what a client is put through for the sake of knowledge: a zone not expected to
// be 30 ms worse, and only until it has three samples.
const (
	exploreBand = 30.0
	exploreFew  = 3.0
)

// tier is how much a zone may have against it and still be named. A name falls to the next only when no zone
// passes; all but the first are failing open.
type tier uint8

const (
	tierGood      tier = iota // serving, up, not draining
	tierReachable             // up, whatever its mode and even if draining: better than what does not answer at all
	tierServed                // serving and not draining, though said to be down: it is more likely that we are wrong
	tierAny
	numTiers
)

// question is one name and client being answered.
type question struct {
	t      *Table
	rule   *rule
	live   Live
	client netip.Addr
	row    *row // nil when the client's prefix is not measured
	rank   *rank
	place  Place
	at     vector
	known  bool
}

// ask prepares a question. It takes no lock and allocates nothing, given a Locate that does neither.
func (t *Table) ask(p *plan, client netip.Addr, live Live) question {
	q := question{t: t, rule: p.rule, live: live, client: client.Unmap().WithZone("")}
	if !q.client.IsValid() {
		return q
	}
	if q.rule.measured {
		if i, ok := t.trie.Lookup(q.client); ok {
			q.row, q.rank = &t.rows[i], &q.rule.ranks[i]
			q.at, q.known = q.row.at, q.row.known
			return q
		}
	}
	q.place, q.known = t.locate(q.client)
	if q.known {
		q.at = vectorOf(q.place.At)
	}
	return q
}

// Answer answers from the table and what is live. dice in [0, 1) decides whether the answer explores; 1 never does.
func (t *Table) Answer(name string, client netip.Addr, live Live, dice float64) (Answer, bool) {
	p := t.plan(name)
	if p == nil {
		return Answer{}, false
	}
	return t.answer(p, client, live, dice), true
}

func (t *Table) answer(p *plan, client netip.Addr, live Live, dice float64) Answer {
	q := t.ask(p, client, live)
	a := Answer{Name: p.Name.Name, TTL: p.TTL}
	z, nodes, tier, ok := q.choose()
	if !ok {
		a.Reason, a.FailOpen, a.Scope = ReasonFailOpen, true, q.scope(tierAny)
		return a
	}
	a.Reason, a.FailOpen = q.reason(z, tier), tier != tierGood
	if dice < q.rule.explore && tier == tierGood {
		if y, tried := q.explore(z, dice/q.rule.explore); tried {
			z, a.Reason = y, ReasonExplored
			nodes = q.nodes(z, tier)
		}
	}
	a.Zone, a.Nodes, a.V6, a.Scope = t.zones[z].Name, nodes, q.v6(z, nodes, tier), q.scope(tier)
	return a
}

// total is what the client is expected to wait for, by way of zone z.
func (q *question) total(z uint16) float64 {
	est, _, _ := q.t.estimate(z, q.row, q.at, q.known)
	return est + q.rule.way(z)
}

// choose is the best zone of the best tier that has one.
func (q *question) choose() (uint16, []Node, tier, bool) {
	for tier := tierGood; tier < numTiers; tier++ {
		if z, nodes, ok := q.first(tier); ok {
			return z, nodes, tier, true
		}
	}
	return 0, nil, tierAny, false
}

// first is the best zone of a tier: by the prefix's order, else by the totals of the moment.
func (q *question) first(tier tier) (zone uint16, nodes []Node, ok bool) {
	if q.rank != nil {
		for _, z := range q.rank.zones() {
			if nodes := q.leading(z, tier); nodes != nil {
				return z, nodes, true
			}
		}
	}
	candidates := q.rule.zones
	if tier == tierGood || tier == tierServed {
		candidates = q.rule.served
	}
	var lowest float64
	for _, z := range candidates {
		total := q.total(z)
		if ok && total >= lowest {
			continue
		}
		if list := q.leading(z, tier); list != nil {
			zone, nodes, ok, lowest = z, list, true, total
		}
	}
	return zone, nodes, ok
}

// leading is nodes, or nil when none of them has the address family that most clients need.
func (q *question) leading(z uint16, tier tier) []Node {
	nodes := q.nodes(z, tier)
	if q.rule.v4 && !slices.ContainsFunc(nodes, hasV4) {
		return nil
	}
	return nodes
}

func hasV4(n Node) bool { return n.V4.IsValid() }

func hasV6(n Node) bool { return n.V6.IsValid() }

// nodes are the nodes of a zone that pass a tier; nil if none does. In the ordinary case all do, and it is the
// zone's own slice.
func (q *question) nodes(z uint16, tier tier) []Node {
	all := q.t.zones[z].Nodes
	bad := slices.IndexFunc(all, func(n Node) bool { return !q.passes(n, tier) })
	if bad < 0 {
		return all
	}
	var some []Node
	for _, n := range all {
		if q.passes(n, tier) {
			some = append(some, n)
		}
	}
	return some
}

func (q *question) passes(n Node, tier tier) bool {
	up := tier == tierServed || tier == tierAny || q.live.Up == nil || q.live.Up(n.ID, q.rule.origins)
	if !up {
		return false
	}
	return tier == tierReachable || tier == tierAny || q.live.Drained == nil || !q.live.Drained(n.Zone, n.ID)
}

// reason says why z leads.
func (q *question) reason(z uint16, tier tier) Reason {
	switch {
	case tier != tierGood:
		return ReasonFailOpen
	case len(q.rule.served) == 1:
		return ReasonOnly
	case q.rank == nil:
		return q.unmeasured(z)
	case z != q.rank.order[0]:
		return ReasonFailover
	case z != q.rank.best && q.leading(q.rank.best, tierGood) != nil:
		return ReasonHeld
	case !q.rank.measured:
		return q.byPlace()
	}
	return ReasonMeasured
}

func (q *question) unmeasured(z uint16) Reason {
	mine := q.total(z)
	for _, other := range q.rule.served {
		if other != z && q.total(other) < mine {
			return ReasonFailover
		}
	}
	return q.byPlace()
}

func (q *question) byPlace() Reason {
	if q.known {
		return ReasonDistance
	}
	return ReasonUnknown
}

// explore picks a zone to try instead of z for a prefix with traffic: one that nobody probes, or that has too few
// samples. where in [0, 1) picks among several.
func (q *question) explore(z uint16, where float64) (uint16, bool) {
	if q.rank == nil || !q.rank.measured {
		return 0, false
	}
	var list [maxRanked]uint16
	n := 0
	limit := q.total(z) + exploreBand
	for _, y := range q.rank.zones() {
		est, _, samples := q.t.estimate(y, q.row, q.at, q.known)
		if y == z || est+q.rule.way(y) > limit || q.rule.probed && samples >= exploreFew || q.leading(y, tierGood) == nil {
			continue
		}
		list[n] = y
		n++
	}
	if n == 0 {
		return 0, false
	}
	return list[min(int(where*float64(n)), n-1)], true
}

// v6 are the nodes to name in AAAA when zone z leads. Browsers prefer IPv6, so a zone that is worse by more than
// the band must not get everybody only because it has an address of that kind.
func (q *question) v6(z uint16, nodes []Node, tier tier) []Node {
	if !q.rule.v6 {
		return nil
	}
	if q.t.zones[z].v6 && slices.ContainsFunc(nodes, hasV6) {
		return nodes
	}
	mine := q.total(z)
	lowest := mine + band(mine)
	var found []Node
	for _, y := range q.rule.zones {
		if total := q.total(y); y != z && q.t.zones[y].v6 && q.t.zones[y].serves() && total <= lowest {
			if list := q.nodes(y, tier); slices.ContainsFunc(list, hasV6) {
				found, lowest = list, total
			}
		}
	}
	return found
}
