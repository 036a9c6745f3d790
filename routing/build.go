package routing

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gaissmai/bart"

	"github.com/nearzone/nearzone/config"
)

// Input is all that a table is built from.
type Input struct {
	Config    *config.Config // its DNS.Names and Routing, and what the names serve
	Zones     []Zone
	Home      string
	Estimates []PrefixEstimate
	Onward    func(zone, origin string) (time.Duration, bool) // nil: none known
	Locate    func(netip.Addr) (Place, bool)                  // nil: no place known
}

// Table is one build: everything an answer needs but health and drain. It is never changed.
type Table struct {
	built  time.Time
	home   string
	locate func(netip.Addr) (Place, bool)
	zones  []site
	index  map[string]uint16 // zone name -> place in zones
	plans  []*plan           // in the order of the configuration
	exact  map[string]*plan
	below  map[string]*plan // of `*.name`, by name
	trie   bart.Table[uint32]
	rows   []row // what the trie's values point to
	moves  int   // prefixes that changed their first zone at this build, counted once a rule
}

// site is a Zone ready to be asked about.
type site struct {
	Zone
	at     vector
	v4, v6 bool // some node has one
}

// row is one measured prefix.
type row struct {
	prefix netip.Prefix
	at     vector
	known  bool
	cells  []cell
}

type cell struct {
	zone    uint16
	mean, n float32
}

// plan is one steered name. Names with equal rules share them.
type plan struct {
	config.Name
	index int
	rule  *rule
}

// rule is everything that makes two names answer alike.
type rule struct {
	key      string
	zones    []uint16 // all it may name, in whatever mode; home first, so that ties go there
	served   []uint16 // those of zones that answers may name while any of them is up
	v4       bool     // some zone has an IPv4 node: then only zones with one lead
	v6       bool     // some zone has an IPv6 node
	origins  []string
	onward   []float64 // ms by zone index; nil for measure: zone
	measured bool      // steer: measured
	explore  float64   // share of answers
	probed   bool      // zones probe by themselves
	ranks    []rank    // by row; nil unless measured
}

// Build makes the table of now. It is pure: what happened before counts only through prev, which may be nil.
func Build(in Input, prev *Table, now time.Time) *Table {
	t := &Table{built: now, home: in.Home, locate: in.Locate, index: map[string]uint16{}, exact: map[string]*plan{}, below: map[string]*plan{}}
	if t.locate == nil {
		t.locate = func(netip.Addr) (Place, bool) { return Place{}, false }
	}
	for _, z := range in.Zones {
		t.index[z.Name] = uint16(len(t.zones))
		t.zones = append(t.zones, siteOf(z))
	}
	t.addRows(in.Estimates)
	rules := map[string]*rule{}
	for i, n := range in.Config.DNS.Names {
		t.addPlan(&plan{Name: n, index: i, rule: t.ruleFor(n, in, prev, rules)})
	}
	t.rank(rules, prev)
	return t
}

func siteOf(z Zone) site {
	s := site{Zone: z, at: vectorOf(z.At)}
	for _, n := range z.Nodes {
		s.v4 = s.v4 || n.V4.IsValid()
		s.v6 = s.v6 || n.V6.IsValid()
	}
	return s
}

// serves says whether answers may name the zone.
func (s *site) serves() bool { return s.Mode == "" || s.Mode == config.ModeServe }

func (t *Table) addPlan(p *plan) {
	t.plans = append(t.plans, p)
	if rest, ok := strings.CutPrefix(p.Name.Name, "*."); ok {
		t.below[rest] = p
		return
	}
	t.exact[p.Name.Name] = p
}

func (t *Table) addRows(list []PrefixEstimate) {
	t.rows = make([]row, 0, len(list))
	var cells []cell // one array for all rows: a build makes few allocations, however many prefixes
	for _, e := range list {
		r := row{prefix: e.Prefix.Masked()}
		start := len(cells)
		for _, m := range e.Zones {
			if z, ok := t.index[m.Zone]; ok && m.N > 0 {
				cells = append(cells, cell{zone: z, mean: float32(m.Mean), n: float32(m.N)})
			}
		}
		if len(cells) == start || PrefixOf(e.Prefix.Addr()) != r.prefix {
			continue
		}
		r.cells = cells[start:len(cells):len(cells)]
		var place Place
		place, r.known = t.locate(r.prefix.Addr())
		r.at = vectorOf(place.At)
		t.trie.Insert(r.prefix, uint32(len(t.rows)))
		t.rows = append(t.rows, r)
	}
}

// ruleFor finds or makes the rule of a name.
func (t *Table) ruleFor(n config.Name, in Input, prev *Table, rules map[string]*rule) *rule {
	r := &rule{origins: in.Config.OriginsOf(n), measured: n.Steer != config.SteerDistance, probed: in.Config.Routing.Probe != "off"}
	if n.Stream == "" && r.measured {
		// A session of a stream sticks to the zone it began in, so a bad try would last for a whole game.
		r.explore = float64(in.Config.Routing.Explore)
	}
	slices.Sort(r.origins)
	zones := slices.Clone(n.Zones)
	slices.Sort(zones)
	r.key = fmt.Sprintf("%q %v %v %q %v", zones, n.Measure, r.measured, r.origins, r.explore)
	if old := rules[r.key]; old != nil {
		return old
	}
	rules[r.key] = r
	t.setZones(r, zones)
	if n.Measure == config.MeasureToOrigin {
		r.onward = t.onwards(r, in.Onward, prev)
	}
	return r
}

func (t *Table) setZones(r *rule, only []string) {
	for i, z := range t.zones {
		if len(z.Nodes) == 0 || len(only) > 0 && !slices.Contains(only, z.Name) {
			continue
		}
		if z.Name == t.home {
			r.zones = slices.Insert(r.zones, 0, uint16(i))
		} else {
			r.zones = append(r.zones, uint16(i))
		}
		r.v4, r.v6 = r.v4 || z.v4, r.v6 || z.v6
	}
	for _, z := range r.zones {
		if t.zones[z].serves() && t.leads(r, z) {
			r.served = append(r.served, z)
		}
	}
}

// leads says whether a zone may be an answer by itself. One with IPv6 alone may not while another has IPv4: most
// clients could not reach it.
func (t *Table) leads(r *rule, z uint16) bool { return t.zones[z].v4 || !r.v4 }

// Onward estimates are held within a band too, or two zones far apart could change places at every build.
const (
	onwardBand  = 2.0
	onwardShare = 0.1
)

// onwards is the way from each zone to the origin that is farthest from it.
func (t *Table) onwards(r *rule, onward func(zone, origin string) (time.Duration, bool), prev *Table) []float64 {
	old := prev.ruleByKey(r.key)
	list := make([]float64, len(t.zones))
	for _, z := range r.zones {
		for _, o := range r.origins {
			list[z] = max(list[z], t.onward(z, o, onward))
		}
		if held, ok := prev.heldOnward(old, t.zones[z].Name); ok {
			if d := list[z] - held; max(d, -d) <= max(onwardBand, onwardShare*held) {
				list[z] = held
			}
		}
	}
	return list
}

// An onward way that nobody measured yet is guessed: none from a Region, and from a Local Zone the distance to its
// parent without the access network, which is on the other side of it.
const (
	onwardGuess   = 2.0
	onwardUnknown = 20.0
)

func (t *Table) onward(z uint16, origin string, onward func(zone, origin string) (time.Duration, bool)) float64 {
	s := t.zones[z]
	if onward != nil {
		if d, ok := onward(s.Name, origin); ok {
			return toMS(d)
		}
	}
	if s.Region {
		return 0
	}
	for _, name := range []string{s.Parent, t.home} {
		if p, ok := t.index[name]; ok && s.Located && t.zones[p].Located {
			return onwardGuess + priorPerKM*s.at.km(t.zones[p].at)
		}
	}
	return onwardUnknown
}

func (t *Table) ruleByKey(key string) *rule {
	if t == nil {
		return nil
	}
	for _, p := range t.plans {
		if p.rule.key == key {
			return p.rule
		}
	}
	return nil
}

func (t *Table) heldOnward(r *rule, zone string) (float64, bool) {
	if r == nil || r.onward == nil {
		return 0, false
	}
	z, ok := t.index[zone]
	if !ok || !slices.Contains(r.zones, z) {
		return 0, false
	}
	return r.onward[z], true
}

// prior is the expected round trip in ms between a place and a zone.
func (t *Table) prior(z uint16, at vector, known bool) float64 {
	s := &t.zones[z]
	if known && s.Located {
		return priorBase + priorPerKM*s.at.km(at)
	}
	return Prior(s.Zone, Place{}, false)
}

// estimate is what is believed of a zone for a row, which may be nil.
func (t *Table) estimate(z uint16, r *row, at vector, known bool) (est, sd, n float64) {
	prior := t.prior(z, at, known)
	if r != nil {
		for _, c := range r.cells {
			if c.zone == z {
				est, sd = Shrink(prior, float64(c.mean), float64(c.n))
				return est, sd, float64(c.n)
			}
		}
	}
	est, sd = Shrink(prior, prior, 0)
	return est, sd, 0
}

func (r *rule) way(z uint16) float64 {
	if r.onward == nil {
		return 0
	}
	return r.onward[z]
}

// plan finds a name: exactly, else the nearest wildcard above it.
func (t *Table) plan(name string) *plan {
	if p := t.exact[name]; p != nil || len(t.below) == 0 {
		return p
	}
	for {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return nil
		}
		if p := t.below[rest]; p != nil {
			return p
		}
		name = rest
	}
}

// Built is when the table was made.
func (t *Table) Built() time.Time { return t.built }

// Prefixes is how many prefixes have been measured.
func (t *Table) Prefixes() int { return len(t.rows) }
