package routing

import "net/netip"

// Answers about clients that were never measured are shared by as many neighbours as is safe, for caches between
// us and them: but never wider than this, so that a later answer about a part is not hidden behind it for long.
const (
	widestV4 = 12
	widestV6 = 24
)

// scope is the network around the client that gets the same answer (RFC 7871, section 7.1.3). Scopes of different
// answers never overlap (section 7.2.1): a wide one is narrowed until no measured prefix is inside.
func (q *question) scope(tier tier) netip.Prefix {
	switch {
	case !q.client.IsValid():
		return netip.Prefix{}
	case q.row != nil:
		return q.row.prefix
	case tier == tierGood && len(q.rule.served) == 1:
		return everyone(q.client)
	case q.known && !q.place.Prefix.IsValid(): // a place that does not say how far it reaches
		return PrefixOf(q.client)
	case !q.rule.measured || q.t.trie.Size() == 0:
		if !q.place.Prefix.IsValid() { // no geography and no samples: nothing tells clients apart
			return everyone(q.client)
		}
		return q.network(q.widest())
	}
	return q.free(q.widest())
}

func everyone(client netip.Addr) netip.Prefix {
	if client.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// widest is the length of the widest scope that geography allows.
func (q *question) widest() int {
	floor := widestV6
	if q.client.Is4() {
		floor = widestV4
	}
	if p := q.place.Prefix; p.IsValid() && p.Contains(q.client) {
		return max(floor, p.Bits())
	}
	return floor
}

func (q *question) network(bits int) netip.Prefix {
	p, _ := q.client.Prefix(bits) // bits come from prefixes of the client's own family
	return p
}

// free is the widest network around the client, from bits on, that has no measured prefix inside. The client's own
// prefix has none, or there would be a row, so there always is one; and what is free stays free when narrowed, so
// halving finds it.
func (q *question) free(bits int) netip.Prefix {
	low, high := bits, max(bits, PrefixOf(q.client).Bits())
	for low < high {
		if mid := (low + high) / 2; q.t.trie.OverlapsPrefix(q.network(mid)) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return q.network(low)
}
