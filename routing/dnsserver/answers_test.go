package dnsserver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/routing/dnsserver"
)

const (
	soa      = "edge.example.com. 60 IN SOA ns1.edge.example.com. hostmaster.edge.example.com. 42 3600 600 1209600 60"
	soaSteer = "edge.example.com. 20 IN SOA ns1.edge.example.com. hostmaster.edge.example.com. 42 3600 600 1209600 60"
	soaFull  = "edge.example.com. 3600 IN SOA ns1.edge.example.com. hostmaster.edge.example.com. 42 3600 600 1209600 60"
	soaSub   = "sub.edge.example.com. 60 IN SOA ns1.sub.edge.example.com. hostmaster.sub.edge.example.com. 42 3600 600 1209600 60"
)

// answerCase is a question and all of its answer. Addresses of steered names are asked for 192.0.2.1, which is near lax.
type answerCase struct {
	q          string // name and type
	rcode      int
	notAA      bool
	an, ns, ex []string
}

var answerCases = []answerCase{
	// apex
	{q: "edge.example.com. SOA", an: []string{soaFull}},
	{q: "edge.example.com. NS", an: []string{
		"edge.example.com. 3600 IN NS ns1.edge.example.com.", "edge.example.com. 3600 IN NS ns2.edge.example.com.", "edge.example.com. 3600 IN NS ns3.edge.example.com."},
		ex: []string{
			"ns1.edge.example.com. 3600 IN A 198.51.100.5", "ns1.edge.example.com. 3600 IN AAAA 2001:db8::5",
			"ns2.edge.example.com. 3600 IN A 198.51.100.6", "ns3.edge.example.com. 3600 IN A 203.0.113.10"}},
	{q: "edge.example.com. A", ns: []string{soa}},
	{q: "edge.example.com. CAA", an: []string{`edge.example.com. 300 IN CAA 0 issue "letsencrypt.org"`}},
	{q: "edge.example.com. MX", an: []string{"edge.example.com. 300 IN MX 10 mail.edge.example.com.", "edge.example.com. 300 IN MX 20 mail.example.net."}},
	{q: "edge.example.com. TXT", an: []string{`edge.example.com. 300 IN TXT "two" "strings"`, `edge.example.com. 300 IN TXT "v=spf1 -all"`}},
	{q: "ns1.edge.example.com. AAAA", an: []string{"ns1.edge.example.com. 3600 IN AAAA 2001:db8::5"}},
	{q: "ns2.edge.example.com. AAAA", ns: []string{soa}},

	// static
	{q: "www.edge.example.com. A", an: []string{"www.edge.example.com. 300 IN A 192.0.2.80", "www.edge.example.com. 300 IN A 192.0.2.81"}},
	{q: "WwW.eDgE.example.com. AAAA", an: []string{"WwW.eDgE.example.com. 300 IN AAAA 2001:db8::80"}},
	{q: "www.edge.example.com. HTTPS", ns: []string{soa}},
	{q: "_game._udp.edge.example.com. SRV", an: []string{"_game._udp.edge.example.com. 300 IN SRV 10 5 7777 play.edge.example.com."}},
	{q: "www.edge.example.com. TYPE65280", ns: []string{soa}},

	// negative
	{q: "missing.edge.example.com. A", rcode: dns.RcodeNameError, ns: []string{soa}},
	{q: "a.b.c.missing.edge.example.com. TXT", rcode: dns.RcodeNameError, ns: []string{soa}},
	{q: `a\.b.edge.example.com. A`, rcode: dns.RcodeNameError, ns: []string{soa}},
	{q: `www\.edge.example.com. A`, rcode: dns.RcodeRefused, notAA: true},
	{q: `\000\255.edge.example.com. A`, rcode: dns.RcodeNameError, ns: []string{soa}},
	{q: "empty.edge.example.com. A", ns: []string{soa}},
	{q: "_udp.edge.example.com. SRV", ns: []string{soa}},
	{q: "x.empty.edge.example.com. A", rcode: dns.RcodeNameError, ns: []string{soa}},
	{q: "x.www.edge.example.com. A", rcode: dns.RcodeNameError, ns: []string{soa}},

	// not ours
	{q: "example.com. A", rcode: dns.RcodeRefused, notAA: true},
	{q: ". NS", rcode: dns.RcodeRefused, notAA: true},
	{q: "notedge.example.com. A", rcode: dns.RcodeRefused, notAA: true},

	// aliases
	{q: "alias.edge.example.com. A", an: []string{
		"alias.edge.example.com. 300 IN CNAME www.edge.example.com.", "www.edge.example.com. 300 IN A 192.0.2.80", "www.edge.example.com. 300 IN A 192.0.2.81"}},
	{q: "alias.edge.example.com. CNAME", an: []string{"alias.edge.example.com. 300 IN CNAME www.edge.example.com."}},
	{q: "alias.edge.example.com. MX", an: []string{"alias.edge.example.com. 300 IN CNAME www.edge.example.com."}, ns: []string{soa}},
	{q: "alias.edge.example.com. ANY", an: []string{"alias.edge.example.com. 300 IN CNAME www.edge.example.com."}},
	{q: "away.edge.example.com. A", an: []string{"away.edge.example.com. 300 IN CNAME www.example.net."}},
	{q: "nowhere.edge.example.com. A", rcode: dns.RcodeNameError, an: []string{"nowhere.edge.example.com. 300 IN CNAME missing.edge.example.com."}, ns: []string{soa}},
	{q: "loop1.edge.example.com. A", an: []string{
		"loop1.edge.example.com. 300 IN CNAME loop2.edge.example.com.", "loop2.edge.example.com. 300 IN CNAME loop1.edge.example.com."}},
	{q: "tosub.edge.example.com. A", an: []string{"a.sub.edge.example.com. 300 IN A 192.0.2.70", "tosub.edge.example.com. 300 IN CNAME a.sub.edge.example.com."}},
	{q: "toplay.edge.example.com. A", an: []string{"play.edge.example.com. 20 IN A 203.0.113.10", "toplay.edge.example.com. 300 IN CNAME play.edge.example.com."}},
	{q: "tolab.edge.example.com. A", an: []string{"tolab.edge.example.com. 300 IN CNAME x.lab.edge.example.com."},
		ns: []string{"lab.edge.example.com. 300 IN NS ns.example.net.", "lab.edge.example.com. 300 IN NS ns.lab.edge.example.com."},
		ex: []string{"ns.lab.edge.example.com. 300 IN A 192.0.2.53"}},

	// wildcards (RFC 4592 §2.2.1)
	{q: "a.wild.edge.example.com. A", an: []string{"a.wild.edge.example.com. 300 IN A 192.0.2.99"}},
	{q: "A.b.wild.edge.example.com. TXT", an: []string{`A.b.wild.edge.example.com. 300 IN TXT "wild"`}},
	{q: "a.wild.edge.example.com. MX", ns: []string{soa}},
	{q: "*.wild.edge.example.com. A", an: []string{"*.wild.edge.example.com. 300 IN A 192.0.2.99"}},
	{q: "real.wild.edge.example.com. A", an: []string{"real.wild.edge.example.com. 300 IN A 192.0.2.98"}},
	{q: "real.wild.edge.example.com. TXT", ns: []string{soa}},
	{q: "x.real.wild.edge.example.com. A", rcode: dns.RcodeNameError, ns: []string{soa}},
	{q: "wild.edge.example.com. A", ns: []string{soa}},
	{q: "x.cwild.edge.example.com. AAAA", an: []string{"www.edge.example.com. 300 IN AAAA 2001:db8::80", "x.cwild.edge.example.com. 300 IN CNAME www.edge.example.com."}},

	// delegation
	{q: "lab.edge.example.com. NS", notAA: true,
		ns: []string{"lab.edge.example.com. 300 IN NS ns.example.net.", "lab.edge.example.com. 300 IN NS ns.lab.edge.example.com."},
		ex: []string{"ns.lab.edge.example.com. 300 IN A 192.0.2.53"}},
	{q: "ns.lab.edge.example.com. A", notAA: true,
		ns: []string{"lab.edge.example.com. 300 IN NS ns.example.net.", "lab.edge.example.com. 300 IN NS ns.lab.edge.example.com."},
		ex: []string{"ns.lab.edge.example.com. 300 IN A 192.0.2.53"}},
	{q: "x.y.lab.edge.example.com. DS", notAA: true,
		ns: []string{"lab.edge.example.com. 300 IN NS ns.example.net.", "lab.edge.example.com. 300 IN NS ns.lab.edge.example.com."},
		ex: []string{"ns.lab.edge.example.com. 300 IN A 192.0.2.53"}},
	{q: "lab.edge.example.com. DS", ns: []string{soa}},

	// a domain inside another
	{q: "a.sub.edge.example.com. A", an: []string{"a.sub.edge.example.com. 300 IN A 192.0.2.70"}},
	{q: "b.sub.edge.example.com. A", rcode: dns.RcodeNameError, ns: []string{soaSub}},

	// steered
	{q: "play.edge.example.com. A", an: []string{"play.edge.example.com. 20 IN A 203.0.113.10"}},
	{q: "PLAY.edge.example.com. A", an: []string{"PLAY.edge.example.com. 20 IN A 203.0.113.10"}},
	{q: "play.edge.example.com. AAAA", ns: []string{soaSteer}},
	{q: "play.edge.example.com. TXT", an: []string{`play.edge.example.com. 300 IN TXT "steered and static"`}},
	{q: "play.edge.example.com. HTTPS", ns: []string{soa}},
	{q: "x.play.edge.example.com. A", an: []string{"x.play.edge.example.com. 20 IN A 203.0.113.10"}},
	{q: "x.y.play.edge.example.com. A", an: []string{"x.y.play.edge.example.com. 20 IN A 203.0.113.10"}},
	{q: "x.play.edge.example.com. TXT", ns: []string{soa}},
	{q: "other.test. A", an: []string{"other.test. 20 IN A 203.0.113.10"}},
	{q: "nobody.edge.example.com. A", rcode: dns.RcodeServerFailure},
	{q: "gone.edge.example.com. A", rcode: dns.RcodeServerFailure},

	// minimal ANY (RFC 8482) and what is no record type
	{q: "play.edge.example.com. ANY", an: []string{`play.edge.example.com. 3600 IN HINFO "RFC8482" ""`}},
	{q: "missing.edge.example.com. ANY", rcode: dns.RcodeNameError, ns: []string{soa}},
	{q: "edge.example.com. AXFR", rcode: dns.RcodeRefused, notAA: true},
	{q: "edge.example.com. IXFR", rcode: dns.RcodeRefused, notAA: true},
	{q: "edge.example.com. MAILB", rcode: dns.RcodeNotImplemented, notAA: true},
	{q: "edge.example.com. OPT", rcode: dns.RcodeFormatError, notAA: true},
}

func TestAnswers(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{Answer: nearLAX})
	for _, network := range []string{"udp", "tcp"} {
		for _, tc := range answerCases {
			t.Run(network+" "+tc.q, func(t *testing.T) { tc.check(t, r, network) })
		}
	}
}

func (tc answerCase) check(t *testing.T, r *running, network string) {
	name, typ, _ := strings.Cut(tc.q, " ")
	q := question(name, typeOf(typ), "")
	q.RecursionDesired = true
	got := r.ask(t, network, q)
	if got.Rcode != tc.rcode || got.Authoritative == tc.notAA || got.Truncated || got.RecursionAvailable || !got.RecursionDesired {
		t.Errorf("header is wrong, want %s:\n%v", dns.RcodeToString[tc.rcode], got)
	}
	if len(got.Question) != 1 || got.Question[0] != q.Question[0] {
		t.Errorf("question %v came back as %v", q.Question, got.Question)
	}
	for _, s := range []struct {
		name string
		got  []dns.RR
		want []string
	}{{"answer", got.Answer, tc.an}, {"authority", got.Ns, tc.ns}, {"additional", got.Extra, tc.ex}} {
		if have := lines(s.got); !slices.Equal(have, s.want) {
			t.Errorf("%s:\n got %q\nwant %q", s.name, have, s.want)
		}
	}
	if opt := got.IsEdns0(); opt == nil || opt.UDPSize() != dnsserver.MaxUDP || scopeOf(got) != -1 {
		t.Errorf("EDNS: %v, want %d bytes and no client subnet", opt, dnsserver.MaxUDP)
	}
}

func typeOf(s string) uint16 {
	switch s {
	case "MAILB":
		return dns.TypeMAILB
	case "TYPE65280":
		return 65280
	}
	return dns.StringToType[s]
}

func TestDo(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	for _, do := range []bool{false, true} {
		q := question("www.edge.example.com.", dns.TypeA, "")
		q.IsEdns0().SetDo(do)
		q.CheckingDisabled = do
		if got := r.ask(t, "udp", q); got.IsEdns0().Do() != do || got.CheckingDisabled != do || got.AuthenticatedData {
			t.Errorf("DO %v came back as:\n%v", do, got)
		}
	}
}

func TestWithoutEDNS(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	q := question("www.edge.example.com.", dns.TypeA, "")
	q.Extra = nil
	if got := r.ask(t, "udp", q); got.IsEdns0() != nil || len(got.Answer) != 2 {
		t.Errorf("want two addresses and no OPT:\n%v", got)
	}
}

func TestOtherClasses(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	for _, class := range []uint16{dns.ClassCHAOS, dns.ClassHESIOD, dns.ClassANY} {
		q := question("version.bind.", dns.TypeTXT, "")
		q.Question[0].Qclass = class
		if got := r.ask(t, "udp", q); got.Rcode != dns.RcodeRefused {
			t.Errorf("class %d: %s, want REFUSED", class, dns.RcodeToString[got.Rcode])
		}
	}
}

func TestTruncation(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	for _, tc := range []struct {
		size   uint16 // advertised; 0: no EDNS
		answer int
		tc     bool
	}{
		{0, 0, true}, {100, 0, true}, {512, 0, true}, {1000, 1, true}, {1232, 1, true}, {65535, 1, true},
	} {
		q := question("big.edge.example.com.", dns.TypeTXT, "")
		q.Extra = nil
		if tc.size > 0 {
			q.SetEdns0(tc.size, false)
		}
		got := r.ask(t, "udp", q)
		if got.Truncated != tc.tc || len(got.Answer) != tc.answer || got.Len() > max(512, min(int(tc.size), 1232)) {
			t.Errorf("advertised %d: TC %v, %d records, %d bytes; want TC %v, %d records", tc.size, got.Truncated, len(got.Answer), got.Len(), tc.tc, tc.answer)
		}
		if got = r.ask(t, "tcp", q); got.Truncated || len(got.Answer) != 2 {
			t.Errorf("advertised %d, TCP: TC %v, %d records; want both", tc.size, got.Truncated, len(got.Answer))
		}
	}
}

// Many nodes: any 8 of them, so that all share the load and the answer fits.
func TestManyNodes(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	first := map[string]bool{}
	for range 50 {
		got := r.ask(t, "udp", question("many.edge.example.com.", dns.TypeA, ""))
		if len(got.Answer) != 8 || got.Truncated {
			t.Fatalf("%d addresses, TC %v; want 8", len(got.Answer), got.Truncated)
		}
		first[got.Answer[0].String()] = true
	}
	if len(first) < 20 {
		t.Errorf("50 answers began with only %d different nodes", len(first))
	}
}
