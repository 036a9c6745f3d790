package dnsserver

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/routing"
)

// maxChain bounds the CNAMEs followed for one question; loops end there too.
const maxChain = 8

// maxAddresses bounds the addresses of one answer, so that it fits into 512 bytes whatever the name. Which
// ones of a larger zone is chance.
const maxAddresses = 8

// lookup answers one question from the zones.
type lookup struct {
	data   *dataset
	answer func(name string, client netip.Addr) (routing.Answer, bool)
	q      *query
	client netip.Addr

	msg     *dns.Msg       // filled
	scope   netip.Prefix   // where the answer holds, when steered is set
	steered routing.Answer // meaningful when steeredOK
	tailored,
	steeredOK bool
}

// run fills the message.
func (l *lookup) run() {
	name, owner := l.q.lower, l.q.name
	for hop := 0; hop <= maxChain; hop++ {
		z := l.data.zoneOf(name)
		if z == nil {
			if hop == 0 {
				l.msg.Rcode = dns.RcodeRefused
			}
			return
		}
		n, cut := z.find(name, l.q.typ == dns.TypeDS)
		l.msg.Authoritative = hop > 0 || cut == nil
		switch {
		case cut != nil:
			l.refer(cut)
			return
		case n == nil:
			l.msg.Rcode = dns.RcodeNameError
			l.deny(z, negativeTTL)
			return
		}
		alias := n.sets[dns.TypeCNAME]
		if len(alias) == 0 || l.q.typ == dns.TypeCNAME || l.q.typ == dns.TypeANY {
			// A subnet in the query is about the name asked; an answer for the name at the end of a chain
			// would be kept under it, so the resolver has to ask for that by itself (RFC 7871 §7.2.1).
			if hop == 0 || n.steered == "" || !l.q.subnet.addr.IsValid() {
				l.fill(z, n, owner)
			}
			return
		}
		if l.seen(owner) {
			return
		}
		l.add(alias, owner)
		owner = alias[0].(*dns.CNAME).Target
		name = dns.CanonicalName(owner)
	}
}

// seen reports whether the chain has been at a name already.
func (l *lookup) seen(owner string) bool {
	return slices.ContainsFunc(l.msg.Answer, func(rr dns.RR) bool { return strings.EqualFold(rr.Header().Name, owner) })
}

// fill answers from a name that exists.
func (l *lookup) fill(z *zone, n *node, owner string) {
	set := n.sets[l.q.typ]
	switch typ := l.q.typ; {
	case typ == dns.TypeANY:
		l.any(n, owner)
	case n.steered != "" && (typ == dns.TypeA || typ == dns.TypeAAAA):
		l.steer(z, n, owner)
	case len(set) == 0:
		l.deny(z, negativeTTL)
	default:
		l.add(set, owner)
		if typ == dns.TypeNS {
			l.glue(set)
		}
	}
}

// steer names nodes. A and AAAA of one client are of one zone, or of one as good: routing sees to that.
func (l *lookup) steer(z *zone, n *node, owner string) {
	a, ok := l.answer(n.steered, l.client)
	if !ok || len(a.Nodes) == 0 { // the configuration is being changed, or the name has no node at all
		l.msg.Rcode = dns.RcodeServerFailure
		return
	}
	ttl := seconds(a.TTL)
	if l.q.typ == dns.TypeA {
		l.addresses(a.Nodes, owner, ttl, func(n *routing.Node) netip.Addr { return n.V4 })
	} else {
		l.addresses(a.V6, owner, ttl, func(n *routing.Node) netip.Addr { return n.V6 })
	}
	if len(l.msg.Answer) == 0 || l.msg.Answer[len(l.msg.Answer)-1].Header().Rrtype != l.q.typ {
		// Resolvers keep a negative answer for everybody, whatever scope it has (RFC 7871 §7.4): so not for long.
		l.deny(z, min(ttl, negativeTTL))
		return
	}
	l.steered, l.steeredOK = a, true
	l.scope, l.tailored = a.Scope, true
}

// addresses adds up to maxAddresses of one family, beginning anywhere, so that clients that take the first
// spread over the nodes.
func (l *lookup) addresses(nodes []routing.Node, owner string, ttl uint32, pick func(*routing.Node) netip.Addr) {
	if len(nodes) == 0 {
		return
	}
	if l.msg.Answer == nil {
		l.msg.Answer = make([]dns.RR, 0, min(len(nodes), maxAddresses))
	}
	start, found := 0, 0
	if len(nodes) > 1 {
		start = rand.IntN(len(nodes))
	}
	for i := range nodes {
		if a := pick(&nodes[(start+i)%len(nodes)]); a.IsValid() && found < maxAddresses {
			l.msg.Answer = append(l.msg.Answer, addressRR(owner, a, ttl))
			found++
		}
	}
}

// any answers a question for everything with next to nothing (RFC 8482 §4.2), and with the CNAME if there is one.
func (l *lookup) any(n *node, owner string) {
	if alias := n.sets[dns.TypeCNAME]; len(alias) > 0 {
		l.add(alias, owner)
		return
	}
	l.msg.Answer = append(l.msg.Answer, &dns.HINFO{Hdr: header(owner, dns.TypeHINFO, anyTTL), Cpu: "RFC8482"})
}

// refer sends the resolver to whom a name was delegated, with the addresses it needs to get there (RFC 9471).
func (l *lookup) refer(cut *node) {
	set := cut.sets[dns.TypeNS]
	l.msg.Ns = append(l.msg.Ns, set...)
	l.glue(set)
}

func (l *lookup) glue(servers []dns.RR) {
	for _, rr := range servers {
		name := dns.CanonicalName(rr.(*dns.NS).Ns)
		z := l.data.zoneOf(name)
		if z == nil {
			continue
		}
		if n := z.nodes[name]; n != nil {
			l.msg.Extra = append(append(l.msg.Extra, n.sets[dns.TypeA]...), n.sets[dns.TypeAAAA]...)
		}
	}
}

// deny adds the SOA that says how long the name or type will not exist (RFC 2308 §3).
func (l *lookup) deny(z *zone, ttl uint32) {
	soa := *z.soa
	soa.Hdr.Ttl = ttl
	l.msg.Ns = append(l.msg.Ns, &soa)
}

// add adds a record set under the name asked, which has the asker's case, or was made by a wildcard. Records
// are shared by all answers, so one under another name is a copy.
func (l *lookup) add(set []dns.RR, owner string) {
	for _, rr := range set {
		if rr.Header().Name != owner {
			rr = dns.Copy(rr)
			rr.Header().Name = owner
		}
		l.msg.Answer = append(l.msg.Answer, rr)
	}
}

// zoneOf is the longest zone that a name is in, or nil.
func (d *dataset) zoneOf(name string) *zone {
	var starts labels
	n := starts.of(name)
	for i := max(0, n-d.labels); i < n; i++ {
		if z := d.zones[name[starts[i]:]]; z != nil {
			return z
		}
	}
	return nil
}

// find walks down from the apex (RFC 4592 §3.3.1). It returns the name's node, or the wildcard's that makes it;
// or the cut it is below. Neither: the name does not exist. A question for DS at a cut is for the parent's side
// of it (RFC 4035 §3.1.4.1).
func (z *zone) find(name string, ds bool) (n, cut *node) {
	var starts labels
	count := starts.of(name)
	n = z.nodes[z.apex]
	for i := count - z.labels - 1; i >= 0; i-- {
		child := z.nodes[name[starts[i]:]]
		if child == nil {
			return n.wild, nil
		}
		if n = child; n.cut && (i > 0 || !ds) {
			return nil, n
		}
	}
	return n, nil
}

// labels are where the labels of a name begin. A name has at most 127.
type labels [128]uint16

func (l *labels) of(name string) (n int) {
	for off, end := 0, name == "."; !end && n < len(l); n++ {
		l[n] = uint16(off)
		off, end = dns.NextLabel(name, off)
	}
	return n
}
