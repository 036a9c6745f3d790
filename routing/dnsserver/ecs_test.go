package dnsserver_test

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/dnsserver"
)

// nearLAX steers everyone as 192.0.2.1.
func nearLAX(name string, _ netip.Addr) (routing.Answer, bool) { return steer(name, addr("192.0.2.1")) }

func TestClientSubnet(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	for _, tc := range []struct {
		name, subnet string
		typ          uint16
		want         string // address; empty: none
		scope        int
	}{
		{"play", "192.0.2.0/24", dns.TypeA, "203.0.113.10", 24},
		{"play", "192.0.2.0/24", dns.TypeAAAA, "", 0}, // NODATA holds for the world (§7.4)
		{"play", "192.0.2.128/25", dns.TypeA, "203.0.113.10", 24},
		{"play", "192.0.2.77/32", dns.TypeA, "203.0.113.10", 24},
		{"play", "192.0.0.0/16", dns.TypeA, "198.51.100.5", 20}, // longer than asked: ask better (§7.2.1)
		{"play", "198.18.0.0/24", dns.TypeA, "203.0.113.20", 15},
		{"play", "198.18.0.0/24", dns.TypeAAAA, "2001:db8:a::20", 15},
		{"play", "2001:db8:1::/48", dns.TypeA, "203.0.113.20", 48},
		{"play", "2001:db8:1::/56", dns.TypeAAAA, "2001:db8:a::20", 48},
		{"play", "::ffff:192.0.2.0/120", dns.TypeA, "203.0.113.10", 96 + 24},
		{"play", "0.0.0.0/0", dns.TypeA, "198.51.100.5", 0}, // "do not use it": the resolver's address counts
		{"play", "::/0", dns.TypeA, "198.51.100.5", 0},
		{"x.play", "192.0.2.0/24", dns.TypeA, "203.0.113.10", 24},
		{"play", "192.0.2.0/24", dns.TypeTXT, "", 0},
		{"www", "192.0.2.0/24", dns.TypeAAAA, "2001:db8::80", 0},
		{"missing", "192.0.2.0/24", dns.TypeA, "", 0},
		{"x.lab", "192.0.2.0/24", dns.TypeA, "", 0},
		{"toplay", "192.0.2.0/24", dns.TypeA, "", 0}, // the alias alone (§7.2.1)
		{"alias", "192.0.2.0/24", dns.TypeAAAA, "2001:db8::80", 0},
		{"nobody", "192.0.2.0/24", dns.TypeA, "", 0},
	} {
		q := question(tc.name+".edge.example.com.", tc.typ, tc.subnet)
		got := r.ask(t, "udp", q)
		var have string
		for _, rr := range got.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				have = rr.A.String()
			case *dns.AAAA:
				have = rr.AAAA.String()
			}
		}
		if have != tc.want || scopeOf(got) != tc.scope {
			t.Errorf("%s %s for %s: %q scope %d, want %q scope %d", tc.name, dns.TypeToString[tc.typ], tc.subnet, have, scopeOf(got), tc.want, tc.scope)
		}
		asked, echoed := q.IsEdns0().Option[0].(*dns.EDNS0_SUBNET), got.IsEdns0().Option[0].(*dns.EDNS0_SUBNET)
		if echoed.Family != asked.Family || echoed.SourceNetmask != asked.SourceNetmask || !echoed.Address.Equal(asked.Address) {
			t.Errorf("%s: option came back as %v", tc.subnet, echoed)
		}
	}
}

// An alias of a steered name is followed for a resolver that sent no subnet.
func TestAliasWithoutSubnet(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	for subnet, want := range map[string]int{"": 2, "0.0.0.0/0": 2, "192.0.2.0/24": 1} {
		got := r.ask(t, "udp", question("toplay.edge.example.com.", dns.TypeA, subnet))
		if len(got.Answer) != want {
			t.Errorf("subnet %q: %d records, want %d", subnet, len(got.Answer), want)
		}
	}
}

// What the resolver's own address is used for (RFC 7871 §10 for private subnets).
func TestResolverAddress(t *testing.T) {
	r := listen(t, noSockets(), dnsserver.Deps{})
	for _, tc := range []struct {
		from, subnet, want string
		scope              int
	}{
		{"192.0.2.9", "", "203.0.113.10", -1},
		{"198.18.7.7", "", "203.0.113.20", -1},
		{"192.0.2.9", "10.1.2.0/24", "203.0.113.10", 8},
		{"192.0.2.9", "172.20.0.0/16", "203.0.113.10", 12},
		{"192.0.2.9", "192.168.1.0/24", "203.0.113.10", 16},
		{"192.0.2.9", "fd00:1::/48", "203.0.113.10", 7},
		{"10.0.0.2", "10.1.2.0/24", "198.51.100.5", 20},
		{"127.0.0.1", "192.168.1.0/24", "198.51.100.5", 20},
	} {
		got := exchange(t, r, question("play.edge.example.com.", dns.TypeA, tc.subnet), tc.from)
		if len(got.Answer) != 1 || got.Answer[0].(*dns.A).A.String() != tc.want || scopeOf(got) != tc.scope {
			t.Errorf("from %s, subnet %s: %v scope %d; want %s scope %d", tc.from, tc.subnet, got.Answer, scopeOf(got), tc.want, tc.scope)
		}
	}
}

func exchange(t *testing.T, r *running, q *dns.Msg, from string) *dns.Msg {
	t.Helper()
	pkt, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got := new(dns.Msg)
	if err := got.Unpack(r.Respond(pkt, addr(from), false, make([]byte, 4096))); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestMalformedSubnet(t *testing.T) {
	r := listen(t, noSockets(), dnsserver.Deps{})
	for name, tc := range map[string]struct {
		data string // hex
		ok   bool
	}{
		"good":                     {"0001 18 00 c00002", true},
		"good, no bits":            {"0001 00 00", true},
		"good, no bits, no family": {"0000 00 00", true},
		"good, odd bits":           {"0001 0f 00 c612", true},
		"good, IPv6":               {"0002 30 00 20010db80001", true},
		"empty":                    {"", false},
		"short":                    {"0001 18", false},
		"no family":                {"0000 08 00 01", false},
		"family 3":                 {"0003 08 00 01", false},
		"family 3, no bits":        {"0003 00 00", false},
		"too many bits":            {"0001 21 00 c000020100", false},
		"too many bits, IPv6":      {"0002 81 00 20010db8000000000000000000000000 80", false},
		"too few bytes":            {"0001 18 00 c000", false},
		"too many bytes":           {"0001 18 00 c0000200", false},
		"bytes but no bits":        {"0001 00 00 c0", false},
		"bits beyond SOURCE":       {"0001 17 00 c00003", false},
		"bits beyond, IPv6":        {"0002 2f 00 20010db80001", false},
		"scope in a query":         {"0001 18 18 c00002", false},
	} {
		q := question("play.edge.example.com.", dns.TypeA, "")
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: unhex(t, tc.data)}}
		got := exchange(t, r, q, "192.0.2.9")
		if ok := got.Rcode == dns.RcodeSuccess; ok != tc.ok || got.IsEdns0() == nil {
			t.Errorf("%s: %s\n%v", name, dns.RcodeToString[got.Rcode], got)
		}
		if !tc.ok && (got.Rcode != dns.RcodeFormatError || scopeOf(got) != -1) {
			t.Errorf("%s: want FORMERR without the option:\n%v", name, got)
		}
	}

	q := question("play.edge.example.com.", dns.TypeA, "192.0.2.0/24")
	q.IsEdns0().Option = append(q.IsEdns0().Option, ecs("192.0.2.0/24"))
	if got := exchange(t, r, q, "192.0.2.9"); got.Rcode != dns.RcodeFormatError {
		t.Errorf("two subnets: %s, want FORMERR", dns.RcodeToString[got.Rcode])
	}
	if got := metric(t, r, "nearzone_dnsserver_malformed_total", "subnet"); got != 14 {
		t.Errorf("malformed{subnet} = %v, want 14", got)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(slices.DeleteFunc([]byte(s), func(c byte) bool { return c == ' ' })))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
