package routing

import "slices"

// A zone is replaced only by one that is better by the band, and was so at the build before as well. With two zones
// in the same city a client would otherwise change places with every sample, and find a cold cache and a closed
// connection each time. Five milliseconds cost 0.2 ms of mean round trip and save 40 % of the moves.
const (
	bandMS    = 5.0
	bandShare = 0.1
)

// band is how much better than total another zone has to be.
func band(total float64) float64 { return max(bandMS, bandShare*total) }

func beats(challenger, holder float64) bool { return challenger+band(holder) < holder }

// maxRanked zones of a prefix are kept in order; behind the eighth-best the order is that of the moment.
const maxRanked = 8

// rank is the order of zones for one prefix under one rule.
type rank struct {
	order    [maxRanked]uint16
	n        uint8
	measured bool   // a zone of the rule has samples
	best     uint16 // lowest estimate, whatever the order
	beat     uint64 // bit a*8+b: at this build, order[b] was better than order[a] by the band
}

func (r *rank) zones() []uint16 { return r.order[:r.n] }

// beaten says whether b was better than a by the band when r was made.
func (r *rank) beaten(a, b uint16) bool {
	i, j := slices.Index(r.zones(), a), slices.Index(r.zones(), b)
	return i >= 0 && j >= 0 && r.beat&(1<<(i*maxRanked+j)) != 0
}

// rank orders the zones of every row under every rule, starting from the order of the previous table.
func (t *Table) rank(rules map[string]*rule, prev *Table) {
	for _, r := range rules {
		if r.measured {
			r.ranks = t.ranksOf(r, t.remember(prev, r.key))
		}
	}
}

func (t *Table) ranksOf(r *rule, past memory) []rank {
	ranks := make([]rank, len(t.rows))
	total, base := make([]float64, len(t.zones)), make([]float64, len(t.zones))
	for i := range t.rows {
		row := &t.rows[i]
		measured := false
		for _, z := range r.served {
			est, _, n := t.estimate(z, row, row.at, row.known)
			total[z] = est + r.way(z)
			base[z] = t.prior(z, row.at, row.known) + r.way(z)
			measured = measured || n > 0
		}
		held, ok := past.of(row)
		if !ok && past.table != nil {
			// Until now this prefix was answered by its place alone; that is the order to hold. At the first
			// build nobody was answered at all.
			held = ordered(r.served, base, rank{})
		}
		ranks[i] = ordered(r.served, total, held)
		ranks[i].measured = measured
		if held.n > 0 && ranks[i].n > 0 && held.order[0] != ranks[i].order[0] {
			t.moves++
		}
	}
	return ranks
}

// ordered ranks zones by their totals (by zone index), holding to the order before.
func ordered(zones []uint16, total []float64, before rank) rank {
	var out rank
	var buf [maxRanked]uint16
	left := shortlist(buf[:0], zones, total, before)
	out.n = uint8(len(left))
	for slot := range int(out.n) {
		pick := 0
		for i, z := range left {
			won := before.n == 0 || beats(total[z], total[left[0]]) && before.beaten(left[0], z)
			if won && total[z] < total[left[pick]] {
				pick = i
			}
		}
		out.order[slot] = left[pick]
		left = slices.Delete(left, pick, pick+1)
	}
	out.note(total)
	return out
}

// note records which pairs are in the wrong order by more than the band, for the next build.
func (r *rank) note(total []float64) {
	for i, a := range r.zones() {
		for j, b := range r.zones() {
			if beats(total[b], total[a]) {
				r.beat |= 1 << (i*maxRanked + j)
			}
		}
		if i == 0 || total[a] < total[r.best] {
			r.best = a
		}
	}
}

// shortlist is at most maxRanked zones: the best, and the one that is held. Those that were ranked before come
// first, in their order.
func shortlist(list, zones []uint16, total []float64, before rank) []uint16 {
	for _, z := range zones {
		i := len(list)
		for i > 0 && total[z] < total[list[i-1]] {
			i--
		}
		if len(list) == maxRanked {
			if i == maxRanked {
				continue
			}
			list = list[:maxRanked-1]
		}
		list = slices.Insert(list, i, z)
	}
	if before.n > 0 && !slices.Contains(list, before.order[0]) && slices.Contains(zones, before.order[0]) {
		list[len(list)-1] = before.order[0]
	}
	position := func(z uint16) int {
		if i := slices.Index(before.zones(), z); i >= 0 {
			return i
		}
		return maxRanked
	}
	slices.SortStableFunc(list, func(a, b uint16) int { return position(a) - position(b) })
	return list
}

// memory is the part of an older table that the ranks of one rule begin with.
type memory struct {
	table *Table
	rule  *rule
	now   []int // older zone index -> present one, -1 when gone
}

func (t *Table) remember(prev *Table, key string) memory {
	m := memory{table: prev, rule: prev.ruleByKey(key)}
	if m.rule == nil {
		return m
	}
	for _, z := range prev.zones {
		now := -1
		if i, ok := t.index[z.Name]; ok {
			now = int(i)
		}
		m.now = append(m.now, now)
	}
	return m
}

// of is the older rank of a row's prefix in present zone indices.
func (m memory) of(r *row) (rank, bool) {
	if m.rule == nil || m.rule.ranks == nil {
		return rank{}, false
	}
	i, ok := m.table.trie.Get(r.prefix)
	if !ok {
		return rank{}, false
	}
	old := m.rule.ranks[i]
	out := rank{n: old.n}
	var gone uint16 = 0xffff // no zone has this index, and positions of the others must not move
	for i, z := range old.zones() {
		out.order[i] = gone
		if now := m.now[z]; now >= 0 {
			out.order[i] = uint16(now)
		}
	}
	out.beat = old.beat
	return out, old.n > 0
}
