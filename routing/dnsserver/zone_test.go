package dnsserver_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/dnsserver"
)

func TestNameServersFollowZones(t *testing.T) {
	nodes := []routing.Node{{ID: "a", V4: addr("192.0.2.1")}}
	r := listen(t, noSockets(), dnsserver.Deps{Zones: func() []routing.Zone {
		return []routing.Zone{{Name: "us-west-2", Nodes: nodes}}
	}})
	count := func() int {
		return len(exchange(t, r, question("other.test.", dns.TypeNS, ""), "192.0.2.1").Answer)
	}
	if got := count(); got != 1 {
		t.Errorf("%d name servers, want 1", got)
	}
	nodes = append(nodes, routing.Node{ID: "b", V6: addr("2001:db8::1")}, routing.Node{ID: "no address yet"})
	r.Rebuild()
	if got := count(); got != 2 {
		t.Errorf("%d name servers, want 2", got)
	}

	// A reload takes the zones of the moment it is applied: others may apply theirs first.
	apply, err := r.Reload(noSockets())
	if err != nil {
		t.Fatal(err)
	}
	nodes = nodes[:1]
	apply()
	if got := count(); got != 1 {
		t.Errorf("%d name servers after the reload, want 1", got)
	}
}

func TestNameServersOfLoneNode(t *testing.T) {
	cfg := noSockets()
	cfg.Zones, cfg.Home, cfg.DNS.Servers = nil, "", nil
	cfg.Node.Address = []netip.Addr{addr("192.0.2.7")}
	r := listen(t, cfg, dnsserver.Deps{})
	got := exchange(t, r, question("ns1.other.test.", dns.TypeA, ""), "192.0.2.1")
	if have := lines(got.Answer); !slices.Equal(have, []string{"ns1.other.test. 3600 IN A 192.0.2.7"}) {
		t.Errorf("ns1: %q", have)
	}
}

// Static NS at the apex replace ours.
func TestStaticNameServers(t *testing.T) {
	cfg := noSockets()
	cfg.DNS.Records = []config.Record{{Name: "other.test", Type: "NS", Values: []string{"dns.example.net"}, TTL: time.Hour}}
	r := listen(t, cfg, dnsserver.Deps{})
	got := exchange(t, r, question("other.test.", dns.TypeNS, ""), "192.0.2.1")
	if have := lines(got.Answer); !slices.Equal(have, []string{"other.test. 3600 IN NS dns.example.net."}) || !got.Authoritative {
		t.Errorf("NS: %q", have)
	}
	got = exchange(t, r, question("ns1.other.test.", dns.TypeA, ""), "192.0.2.1")
	if got.Rcode != dns.RcodeNameError || got.Ns[0].(*dns.SOA).Ns != "dns.example.net." {
		t.Errorf("ns1 exists still:\n%v", got)
	}
}

func TestBadZones(t *testing.T) {
	for want, change := range map[string]func(*config.DNS){
		`"play.example.org" is under none of dns.domains`:      func(d *config.DNS) { d.Names = append(d.Names, config.Name{Name: "play.example.org"}) },
		`"a b" is not a domain name`:                           func(d *config.DNS) { d.Domains = append(d.Domains, "a b") },
		`"x.example.org" is under none`:                        record("x.example.org", "A", "192.0.2.1"),
		`unknown type "HINFO"`:                                 record("x.other.test", "HINFO", "a b"),
		`write it as 192.0.2.1`:                                record("x.other.test", "A", "2001:db8::1"),
		`an IPv4 address; write it as 2001:db8::1`:             record("x.other.test", "AAAA", "::ffff:192.0.2.1"),
		`write it as 10 mail.example.com`:                      record("x.other.test", "MX", "mail.example.com"),
		`write it as 0 issue`:                                  record("x.other.test", "CAA", "letsencrypt.org"),
		`write it as 10 5 443 host.example.com`:                record("x.other.test", "SRV", "10 5 host"),
		`a value is one line`:                                  record("x.other.test", "TXT", "a\nb"),
		`x.other.test A ""`:                                    record("x.other.test", "A", ""),
		`"other.test" cannot be a CNAME`:                       record("other.test", "CNAME", "example.com"),
		`"www.edge.example.com" is a CNAME, which allows no`:   record("www.edge.example.com", "CNAME", "example.com"),
		`"many.edge.example.com" is a steered name and cannot`: record("many.edge.example.com", "CNAME", "example.com"),
		`"play.edge.example.com" is a steered name: its`:       record("play.edge.example.com", "A", "192.0.2.1"),
		`"*.wild.edge.example.com" cannot be delegated`:        record("*.wild.edge.example.com", "NS", "example.com"),
		`"x.lab.edge.example.com" has TXT, but is delegated`:   record("x.lab.edge.example.com", "TXT", "x"),
		`"lab.edge.example.com" has MX, but is delegated`:      record("lab.edge.example.com", "MX", "10 example.com"),
		`"play.lab.edge.example.com" is below a delegation`: func(d *config.DNS) {
			d.Names = append(d.Names, config.Name{Name: "play.lab.edge.example.com"})
		},
		`"a b.other.test" is not a host name`: record("a b.other.test", "A", "192.0.2.1"),
		`"x..other.test" is not a host name`:  record("x..other.test", "A", "192.0.2.1"),
	} {
		cfg := noSockets()
		change(&cfg.DNS)
		err := dnsserver.Check(cfg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

func record(name, typ, value string) func(*config.DNS) {
	return func(d *config.DNS) {
		d.Records = append(d.Records, config.Record{Name: name, Type: typ, Values: []string{value}})
	}
}
