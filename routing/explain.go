package routing

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// ErrUnknownName is returned by Explain for a name that is not steered.
var ErrUnknownName = errors.New("not a steered name")

// Explanation is an answer with everything that was weighed for it.
type Explanation struct {
	Name       string       `json:"name"`
	Client     netip.Addr   `json:"client"`
	Prefix     netip.Prefix `json:"prefix"` // that the client is measured under
	Scope      netip.Prefix `json:"scope"`  // network that gets the same answer
	Zone       string       `json:"zone"`
	Reason     Reason       `json:"reason"`
	Why        string       `json:"why"`
	FailOpen   bool         `json:"fail_open"`
	TTL        float64      `json:"ttl_seconds"`
	Nodes      []string     `json:"nodes"`      // named in the answer
	Candidates []Candidate  `json:"candidates"` // in the order they would be tried
}

// Candidate is one zone the name may use, as seen from the client.
type Candidate struct {
	Zone     string   `json:"zone"`
	Estimate float64  `json:"estimate_ms"` // client to zone
	SD       float64  `json:"sd_ms"`
	Samples  float64  `json:"samples"`     // decayed; 0 with source prior
	Source   string   `json:"source"`      // prior or measured
	Onward   float64  `json:"onward_ms"`   // zone to origin, 0 when the name does not count it
	Total    float64  `json:"total_ms"`    // what zones are compared by
	Distance *float64 `json:"distance_km"` // null when a place is not known
	Health   string   `json:"health"`      // up, down or draining
	Healthy  bool     `json:"healthy"`     // up, so that answers may name it
	NodesUp  int      `json:"nodes_up"`
	Reason   string   `json:"reason"` // what speaks for or against it
}

// Explain answers as Answer does, without exploring, and says why. An empty name is the first one configured.
func (r *Router) Explain(name string, client netip.Addr) (Explanation, error) {
	return r.now.Load().table.Explain(name, client, r.live)
}

// Explain is Router.Explain for one table.
func (t *Table) Explain(name string, client netip.Addr, live Live) (Explanation, error) {
	if len(t.plans) == 0 {
		return Explanation{}, fmt.Errorf("explain: no names are configured: give dns.domains and a site host below one, or dns.names")
	}
	if name == "" {
		name = t.plans[0].Name.Name
	}
	p := t.plan(name)
	if p == nil {
		return Explanation{}, fmt.Errorf("explain %q: %w (have: %s)", name, ErrUnknownName, strings.Join(t.names(), ", "))
	}
	if !client.IsValid() {
		return Explanation{}, fmt.Errorf("explain %q: a client address is needed", name)
	}
	q := t.ask(p, client, live)
	a := t.answer(p, client, live, 1)
	e := Explanation{
		Name: name, Client: q.client, Prefix: PrefixOf(q.client), Scope: a.Scope, Zone: a.Zone,
		Reason: a.Reason, FailOpen: a.FailOpen, TTL: a.TTL.Seconds(), Nodes: []string{}, Candidates: q.candidates(a),
	}
	for _, n := range a.Nodes {
		e.Nodes = append(e.Nodes, n.ID)
	}
	e.Why = why(a, e.Candidates)
	return e, nil
}

func (t *Table) names() []string {
	var list []string
	for _, p := range t.plans {
		list = append(list, p.Name.Name)
	}
	return list
}

// candidates are all zones of the name: the chosen one, then those that may serve by what they would cost.
func (q *question) candidates(a Answer) []Candidate {
	list := []Candidate{}
	for _, z := range q.rule.zones {
		list = append(list, q.candidate(z))
	}
	slices.SortStableFunc(list, func(x, y Candidate) int {
		switch {
		case (x.Zone == a.Zone) != (y.Zone == a.Zone):
			return order(x.Zone == a.Zone)
		case x.Healthy != y.Healthy:
			return order(x.Healthy)
		case x.Total != y.Total:
			return order(x.Total < y.Total)
		}
		return 0
	})
	for i := range list {
		list[i].Reason = q.verdict(list[i], list[0])
	}
	return list
}

func order(first bool) int {
	if first {
		return -1
	}
	return 1
}

func (q *question) candidate(z uint16) Candidate {
	s := &q.t.zones[z]
	est, sd, n := q.t.estimate(z, q.row, q.at, q.known)
	c := Candidate{Zone: s.Name, Estimate: round(est), SD: round(sd), Samples: round(n), Source: "prior", Onward: round(q.rule.way(z)), Total: round(est + q.rule.way(z))}
	if n > 0 {
		c.Source = "measured"
	}
	if q.known && s.Located {
		km := math.Round(s.at.km(q.at))
		c.Distance = &km
	}
	up := q.nodes(z, tierReachable)
	c.NodesUp, c.Health = len(up), "up"
	switch {
	case len(up) == 0:
		c.Health = "down"
	case s.Mode == "drain" || len(q.nodes(z, tierGood)) == 0:
		c.Health = "draining"
	}
	c.Healthy = c.Health == "up" && slices.Contains(q.rule.served, z) && q.leading(z, tierGood) != nil
	return c
}

func round(ms float64) float64 { return math.Round(ms*1000) / 1000 }

// verdict says in words what speaks for or against a candidate, given the chosen one.
func (q *question) verdict(c, chosen Candidate) string {
	z := q.t.index[c.Zone]
	switch {
	case c.Zone == chosen.Zone:
		return "chosen"
	case c.Health != "up":
		return c.Health
	case !q.t.zones[z].serves():
		return "mode " + string(q.t.zones[z].Mode)
	case !c.Healthy:
		return "no IPv4 address is up"
	case c.Total < chosen.Total && !beats(c.Total, chosen.Total):
		return fmt.Sprintf("%.1f ms better, which is less than the %.1f ms it takes to move", chosen.Total-c.Total, band(chosen.Total))
	case c.Total < chosen.Total:
		return fmt.Sprintf("%.1f ms better, but not for two builds yet", chosen.Total-c.Total)
	}
	return fmt.Sprintf("%.1f ms behind", c.Total-chosen.Total)
}

// why is one sentence about the answer. list begins with the chosen zone.
func why(a Answer, list []Candidate) string {
	if len(list) == 0 || a.Zone == "" {
		return "the name has no node that could be named"
	}
	chosen := list[0]
	parts := []string{chosen.describe()}
	switch a.Reason {
	case ReasonOnly:
		parts = append(parts, "the only zone that serves the name")
	case ReasonFailOpen:
		return fmt.Sprintf("no zone of the name is up and serving, failing open to %s (%s)", parts[0], chosen.Health)
	default:
		parts = append(parts, rivals(chosen, list[1:])...)
	}
	return strings.Join(parts, ", ") + "; healthy"
}

func (c Candidate) describe() string {
	var s string
	switch {
	case c.Samples > 0:
		s = fmt.Sprintf("estimated %.1f ms ± %.1f from %s", c.Estimate, c.SD, samples(c.Samples))
	case c.Distance != nil:
		s = fmt.Sprintf("%.0f km away, so %.1f ms expected (not measured)", *c.Distance, c.Estimate)
	default:
		s = fmt.Sprintf("%.1f ms assumed (not measured, place unknown)", c.Estimate)
	}
	if c.Onward > 0 {
		s += fmt.Sprintf(" plus %.1f ms on to the origin", c.Onward)
	}
	return c.Zone + ": " + s
}

func samples(n float64) string {
	if n <= 1 {
		return "1 sample"
	}
	return fmt.Sprintf("%.0f samples", math.Max(n, 2))
}

// rivals is what to say of the others: the best that could serve, and any better one that cannot or may not.
func rivals(chosen Candidate, others []Candidate) []string {
	var say []string
	ahead, kept := false, false
	for _, c := range others {
		switch {
		case c.Healthy && c.Total < chosen.Total && kept:
		case c.Healthy && c.Total < chosen.Total:
			kept = true
			say = append(say, fmt.Sprintf("kept although %s is %s", c.Zone, c.Reason))
		case c.Healthy && !ahead:
			ahead = true
			say = append(say, fmt.Sprintf("%.1f ms ahead of %s", c.Total-chosen.Total, c.Zone))
		case !c.Healthy && c.Total < chosen.Total:
			say = append(say, fmt.Sprintf("%s would take %.1f ms but is not named (%s)", c.Zone, c.Total, c.Reason))
		}
	}
	return say
}
