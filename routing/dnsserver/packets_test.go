package dnsserver_test

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/dnsserver"
)

func noSockets() *config.Config {
	cfg := world()
	cfg.DNS.Listen = ""
	return cfg
}

const (
	name    = "037777770465646765076578616d706c6503636f6d00" // www.edge.example.com
	inA     = "00010001"
	opt     = "00 0029 04d0 00000000 0000"
	oneOnly = "1234 0000 0001 0000 0000 0000"
)

func TestPackets(t *testing.T) {
	r := listen(t, noSockets(), dnsserver.Deps{})
	malformed := 0.0
	for what, tc := range map[string]struct {
		packet string // hex
		rcode  int    // -1: no answer
	}{
		"good":                           {oneOnly + name + inA, dns.RcodeSuccess},
		"good, EDNS":                     {"1234 0000 0001 0000 0000 0001" + name + inA + opt, dns.RcodeSuccess},
		"good, trailing bytes":           {oneOnly + name + inA + "dead", dns.RcodeSuccess},
		"unknown option":                 {"1234 0000 0001 0000 0000 0001" + name + inA + "00 0029 04d0 00000000 0008 fde9 0004 01020304", dns.RcodeSuccess},
		"unknown EDNS flags":             {"1234 0000 0001 0000 0000 0001" + name + inA + "00 0029 04d0 00007fff 0000", dns.RcodeSuccess},
		"empty":                          {"", -1},
		"eleven bytes":                   {"1234 0000 0001 0000 0000 00", -1},
		"response":                       {"1234 8000 0001 0000 0000 0000" + name + inA, -1},
		"header alone":                   {"1234 0000 0000 0000 0000 0000", dns.RcodeFormatError},
		"no question":                    {oneOnly, dns.RcodeFormatError},
		"two questions":                  {"1234 0000 0002 0000 0000 0000" + name + inA + name + inA, dns.RcodeFormatError},
		"name cut":                       {oneOnly + "03777777", dns.RcodeFormatError},
		"class cut":                      {oneOnly + name + "0001", dns.RcodeFormatError},
		"name points to itself":          {oneOnly + "c00c" + inA, dns.RcodeFormatError},
		"name points to the header":      {oneOnly + "0377777 7c000" + inA, dns.RcodeFormatError},
		"reserved label type":            {oneOnly + "40" + name + inA, dns.RcodeFormatError},
		"record cut":                     {"1234 0000 0001 0000 0000 0001" + name + inA + "00 0029", dns.RcodeFormatError},
		"record promised":                {"1234 0000 0001 0000 0000 0001" + name + inA, dns.RcodeFormatError},
		"65,535 records promised":        {"1234 0000 0001 ffff ffff ffff" + name + inA, dns.RcodeFormatError},
		"option cut":                     {"1234 0000 0001 0000 0000 0001" + name + inA + "00 0029 04d0 00000000 0003 fde900", dns.RcodeFormatError},
		"option too long":                {"1234 0000 0001 0000 0000 0001" + name + inA + "00 0029 04d0 00000000 0004 fde90001", dns.RcodeFormatError},
		"OPT twice":                      {"1234 0000 0001 0000 0000 0002" + name + inA + opt + opt, dns.RcodeFormatError},
		"OPT not at the root":            {"1234 0000 0001 0000 0000 0001" + name + inA + "016100 0029 04d0 00000000 0000", dns.RcodeFormatError},
		"OPT as answer":                  {"1234 0000 0001 0001 0000 0000" + name + inA + opt, dns.RcodeFormatError},
		"EDNS version 1":                 {"1234 0000 0001 0000 0000 0001" + name + inA + "00 0029 04d0 00010000 0000", dns.RcodeBadVers},
		"EDNS version 1, strange option": {"1234 0000 0001 0000 0000 0001" + name + inA + "00 0029 04d0 00010000 0001 ff", dns.RcodeBadVers},
		"NOTIFY":                         {"1234 2400 0001 0000 0000 0000" + name + "00060001", dns.RcodeNotImplemented},
		"UPDATE":                         {"1234 2800 0001 0000 0000 0000" + name + "00060001", dns.RcodeNotImplemented},
		"opcode 15":                      {"1234 7800 0000 0000 0000 0000", dns.RcodeNotImplemented},
	} {
		out := r.Respond(unhex(t, tc.packet), addr("192.0.2.1"), false, make([]byte, 4096))
		if tc.rcode == dns.RcodeFormatError || tc.rcode < 0 {
			malformed++
		}
		if tc.rcode < 0 {
			if out != nil {
				t.Errorf("%s: answered %x, want silence", what, out)
			}
			continue
		}
		var got dns.Msg
		if err := got.Unpack(out); err != nil {
			t.Errorf("%s: answer %x: %v", what, out, err)
			continue
		}
		if got.Rcode != tc.rcode || got.Id != 0x1234 || !got.Response {
			t.Errorf("%s: want %s, got\n%v", what, dns.RcodeToString[tc.rcode], &got)
		}
	}
	if got := metric(t, r, "nearzone_dnsserver_malformed_total", ""); got != malformed {
		t.Errorf("malformed = %v, want %v", got, malformed)
	}
}

// BADVERS says which version we know, in an RCODE of 12 bits (RFC 6891 §6.1.3).
func TestBadVersion(t *testing.T) {
	r := listen(t, noSockets(), dnsserver.Deps{})
	q := question("www.edge.example.com.", dns.TypeA, "")
	q.IsEdns0().SetVersion(1)
	got := exchange(t, r, q, "192.0.2.1")
	if got.Rcode != dns.RcodeBadVers || got.IsEdns0().Version() != 0 || len(got.Answer) != 0 {
		t.Errorf("want BADVERS, version 0 and nothing else:\n%v", got)
	}
}

// The longest names there are, with as many labels as fit.
func TestLongNames(t *testing.T) {
	r := listen(t, noSockets(), dnsserver.Deps{})
	long := ""
	for len(long)+len("play.edge.example.com.") <= 252 {
		long += "a."
	}
	got := exchange(t, r, question(long+"play.edge.example.com.", dns.TypeA, "192.0.2.0/24"), "192.0.2.1")
	if got.Rcode != dns.RcodeSuccess || len(got.Answer) != 1 {
		t.Errorf("a name of %d bytes:\n%v", len(long), got)
	}
	wire := unhex(t, oneOnly)
	for range 127 {
		wire = append(wire, 1, 'a')
	}
	wire = append(wire, 0, 0, 1, 0, 1)
	out := r.Respond(wire, addr("192.0.2.1"), false, make([]byte, 4096))
	if rcode := int(out[3] & 0xF); rcode != dns.RcodeRefused && rcode != dns.RcodeFormatError {
		t.Errorf("127 labels outside our zones: RCODE %d", rcode)
	}
}

// TestPanicCostsOneAnswer: a fault of ours that some question brings out must not take the whole node down.
func TestPanicCostsOneAnswer(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{Answer: func(name string, client netip.Addr) (routing.Answer, bool) {
		if client == addr("192.0.2.66") {
			panic("a fault")
		}
		return steer(name, client)
	}})
	for _, network := range []string{"udp", "tcp"} {
		if m := r.ask(t, network, question("play.edge.example.com.", dns.TypeA, "192.0.2.66/32")); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %s, want SERVFAIL", network, dns.RcodeToString[m.Rcode])
		}
		if m := r.ask(t, network, question("play.edge.example.com.", dns.TypeA, "192.0.2.0/24")); m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %s after it, want an answer", network, dns.RcodeToString[m.Rcode])
		}
	}
	if got := metric(t, r, "nearzone_dnsserver_panics_total", ""); got != 2 {
		t.Errorf("panics_total = %v, want 2", got)
	}
}

func FuzzRespond(f *testing.F) {
	r := listen(f, noSockets(), dnsserver.Deps{})
	for _, tc := range answerCases {
		asked, typ, _ := strings.Cut(tc.q, " ")
		if pkt, err := question(asked, typeOf(typ), "192.0.2.0/24").Pack(); err == nil {
			f.Add(pkt, false)
		}
	}
	for _, q := range []*dns.Msg{
		question("play.edge.example.com.", dns.TypeA, "192.0.2.0/24"), question("x.play.edge.example.com.", dns.TypeAAAA, "2001:db8:1::/48"),
		question("lab.edge.example.com.", dns.TypeNS, ""), question("big.edge.example.com.", dns.TypeTXT, ""), question(`\000.edge.example.com.`, dns.TypeA, "0.0.0.0/0"),
	} {
		pkt, _ := q.Pack()
		f.Add(pkt, true)
	}
	buf := make([]byte, 2*dnsserver.MaxUDP)
	f.Fuzz(func(t *testing.T, pkt []byte, tcp bool) {
		out := r.Respond(pkt, addr("192.0.2.1"), tcp, buf)
		if out == nil {
			if len(pkt) >= 12 && pkt[2]&0x80 == 0 {
				t.Fatalf("a query was dropped: %x", pkt)
			}
			return
		}
		if !tcp && len(out) > dnsserver.MaxUDP {
			t.Fatalf("%d bytes over UDP for %x", len(out), pkt)
		}
		var m dns.Msg
		if err := m.Unpack(out); err != nil {
			t.Fatalf("answer %x to %x: %v", out, pkt, err)
		}
		if m.Id != binary.BigEndian.Uint16(pkt) || !m.Response {
			t.Fatalf("answer %x is not for %x", out, pkt)
		}
	})
}

// The client subnet alone, inside an otherwise good query: FORMERR, or echoed as it came with a scope.
func FuzzSubnet(f *testing.F) {
	r := listen(f, noSockets(), dnsserver.Deps{})
	for _, seed := range []string{"\x00\x01\x18\x00\xc0\x00\x02", "\x00\x02\x30\x00\x20\x01\x0d\xb8\x00\x01", "\x00\x00\x00\x00", "\x00\x01\x21\x00\x00\x00\x00\x00\x00"} {
		f.Add([]byte(seed))
	}
	buf := make([]byte, 4096)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1000 {
			return
		}
		q := question("play.edge.example.com.", dns.TypeA, "")
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: data}}
		pkt, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if err := m.Unpack(r.Respond(pkt, addr("192.0.2.1"), false, buf)); err != nil {
			t.Fatal(err)
		}
		scope := scopeOf(&m)
		if m.Rcode == dns.RcodeFormatError && scope == -1 {
			return
		}
		if m.Rcode != dns.RcodeSuccess || scope < 0 || scope > 128 || data[2] == 0 && scope != 0 {
			t.Fatalf("subnet %x:\n%v", data, &m)
		}
	})
}

func BenchmarkSteered(b *testing.B) {
	r := listen(b, noSockets(), dnsserver.Deps{})
	for _, bench := range []struct {
		name string
		q    *dns.Msg
	}{
		{"ecs", question("play.edge.example.com.", dns.TypeA, "192.0.2.0/24")},
		{"resolver", question("play.edge.example.com.", dns.TypeA, "")},
		{"wildcard", question("x.play.edge.example.com.", dns.TypeA, "192.0.2.0/24")},
		{"nxdomain", question("missing.edge.example.com.", dns.TypeA, "")},
	} {
		b.Run(bench.name, func(b *testing.B) {
			pkt, err := bench.q.Pack()
			if err != nil {
				b.Fatal(err)
			}
			from, buf := addr("192.0.2.1"), make([]byte, 2*dnsserver.MaxUDP)
			b.ReportAllocs()
			for b.Loop() {
				if r.Respond(pkt, from, false, buf) == nil {
					b.Fatal("no answer")
				}
			}
		})
	}
}
