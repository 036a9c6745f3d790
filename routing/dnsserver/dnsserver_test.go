package dnsserver_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/dnsserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// world is three zones: lax has IPv4 alone, phx has both, and the Region has two nodes.
var (
	lax = []routing.Node{{ID: "203.0.113.10", Zone: "us-west-2-lax-1a", V4: addr("203.0.113.10")}}
	phx = []routing.Node{{ID: "203.0.113.20", Zone: "us-west-2-phx-2a", V4: addr("203.0.113.20"), V6: addr("2001:db8:a::20")}}
	pdx = []routing.Node{
		{ID: "198.51.100.5", Zone: "us-west-2", V4: addr("198.51.100.5"), V6: addr("2001:db8::5")},
		{ID: "198.51.100.6", Zone: "us-west-2", V4: addr("198.51.100.6")},
	}
)

// steer is a small routing table: 192.0.2.0/24 is near lax, 198.18.0.0/15 near phx, 2001:db8:1::/48 near phx,
// everything else near the Region.
func steer(name string, client netip.Addr) (routing.Answer, bool) {
	a := routing.Answer{Name: name, TTL: 20 * time.Second, Reason: routing.ReasonMeasured}
	switch {
	case strings.HasPrefix(name, "nobody."):
		return a, true
	case strings.HasPrefix(name, "gone."):
		return a, false
	case strings.HasPrefix(name, "many."):
		for i := range 200 {
			a.Nodes = append(a.Nodes, routing.Node{V4: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})})
		}
		a.Zone, a.Scope = "us-west-2", prefix("0.0.0.0/0")
	case prefix("192.0.2.0/24").Contains(client):
		a.Zone, a.Nodes, a.Scope = "us-west-2-lax-1a", lax, prefix("192.0.2.0/24")
	case prefix("198.18.0.0/15").Contains(client):
		a.Zone, a.Nodes, a.V6, a.Scope = "us-west-2-phx-2a", phx, phx, prefix("198.18.0.0/15")
	case prefix("2001:db8:1::/48").Contains(client):
		a.Zone, a.Nodes, a.V6, a.Scope = "us-west-2-phx-2a", phx, phx, prefix("2001:db8:1::/48")
	case client.Is4():
		a.Zone, a.Nodes, a.V6, a.Scope = "us-west-2", pdx[:1], pdx[:1], netip.PrefixFrom(client, 20).Masked()
		a.Reason, a.FailOpen = routing.ReasonFailOpen, true
	default:
		a.Zone, a.Nodes, a.V6, a.Scope = "us-west-2", pdx[:1], pdx[:1], netip.PrefixFrom(client, 32).Masked()
	}
	return a, true
}

func world() *config.Config {
	rec := func(name, typ string, values ...string) config.Record {
		return config.Record{Name: name, Type: typ, Values: values, TTL: 300 * time.Second}
	}
	node := func(addrs ...string) (n config.ZoneNode) {
		for _, a := range addrs {
			n.Addrs = append(n.Addrs, addr(a))
		}
		return n
	}
	return &config.Config{
		Home: "us-west-2",
		Hash: "0000002a1234",
		Zones: []config.Zone{
			{Name: "us-west-2", Nodes: []config.ZoneNode{node("198.51.100.5", "2001:db8::5"), node("198.51.100.6")}},
			{Name: "us-west-2-lax-1a", Nodes: []config.ZoneNode{node("203.0.113.10")}},
		},
		DNS: config.DNS{
			Listen:  "127.0.0.1:0",
			Domains: []string{"edge.example.com", "sub.edge.example.com", "other.test"},
			Servers: []string{"us-west-2", "us-west-2-lax-1a"},
			Names: []config.Name{
				{Name: "play.edge.example.com"}, {Name: "*.play.edge.example.com"}, {Name: "many.edge.example.com"},
				{Name: "nobody.edge.example.com"}, {Name: "gone.edge.example.com"}, {Name: "other.test"},
			},
			Records: []config.Record{
				rec("edge.example.com", "CAA", `0 issue "letsencrypt.org"`),
				rec("edge.example.com", "MX", "10 mail.edge.example.com", "20 mail.example.net."),
				rec("edge.example.com", "TXT", "v=spf1 -all", `"two" "strings"`),
				rec("www.edge.example.com", "A", "192.0.2.80", "192.0.2.81", "192.0.2.80"),
				rec("www.edge.example.com", "AAAA", "2001:db8::80"),
				rec("alias.edge.example.com", "CNAME", "www.edge.example.com"),
				rec("toplay.edge.example.com", "CNAME", "play.edge.example.com."),
				rec("tosub.edge.example.com", "CNAME", "a.sub.edge.example.com"),
				rec("away.edge.example.com", "CNAME", "www.example.net"),
				rec("nowhere.edge.example.com", "CNAME", "missing.edge.example.com"),
				rec("loop1.edge.example.com", "CNAME", "loop2.edge.example.com"),
				rec("loop2.edge.example.com", "CNAME", "loop1.edge.example.com"),
				rec("deep.empty.edge.example.com", "TXT", "x"),
				rec("*.wild.edge.example.com", "TXT", "wild"),
				rec("*.wild.edge.example.com", "A", "192.0.2.99"),
				rec("real.wild.edge.example.com", "A", "192.0.2.98"),
				rec("*.cwild.edge.example.com", "CNAME", "www.edge.example.com"),
				rec("_game._udp.edge.example.com", "SRV", "10 5 7777 play.edge.example.com"),
				rec("lab.edge.example.com", "NS", "ns.lab.edge.example.com", "ns.example.net"),
				rec("ns.lab.edge.example.com", "A", "192.0.2.53"),
				rec("tolab.edge.example.com", "CNAME", "x.lab.edge.example.com"),
				rec("play.edge.example.com", "TXT", "steered and static"),
				rec("a.sub.edge.example.com", "A", "192.0.2.70"),
				rec("big.edge.example.com", "TXT", strings.Repeat("a", 700), strings.Repeat("b", 700)),
			},
		},
	}
}

// running is a server under test.
type running struct {
	*dnsserver.Server
	reg *prometheus.Registry
	udp string
}

func listen(t testing.TB, cfg *config.Config, d dnsserver.Deps) *running {
	t.Helper()
	reg := prometheus.NewRegistry()
	if d.Answer == nil {
		d.Answer = steer
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	d.Reg = reg
	srv, err := dnsserver.Listen(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: srv, reg: reg}
	if list := srv.Addrs(); len(list) > 0 {
		r.udp = list[0].String()
	}
	return r
}

func start(t testing.TB, cfg *config.Config, d dnsserver.Deps) *running {
	t.Helper()
	r := listen(t, cfg, d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// question makes a query with EDNS, and with a client subnet unless that is empty.
func question(name string, typ uint16, subnet string) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	if subnet != "" {
		m.IsEdns0().Option = append(m.IsEdns0().Option, ecs(subnet))
	}
	return m
}

func ecs(subnet string) *dns.EDNS0_SUBNET {
	p := prefix(subnet)
	o := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: uint8(p.Bits()), Address: net.IP(p.Addr().AsSlice())}
	if p.Addr().Is4() {
		o.Family = 1
	}
	return o
}

func (r *running) ask(t testing.TB, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 4096}
	in, _, err := c.Exchange(m, r.udp)
	if err != nil {
		t.Fatalf("%s %s: %v", network, m.Question[0].String(), err)
	}
	return in
}

// lines is a section as sorted text, without OPT.
func lines(section []dns.RR) []string {
	list := []string{}
	for _, rr := range section {
		if rr.Header().Rrtype != dns.TypeOPT {
			list = append(list, strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	slices.Sort(list)
	return list
}

// scopeOf is the scope of the answer's client subnet; -1 when it has none.
func scopeOf(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if s, ok := o.(*dns.EDNS0_SUBNET); ok {
				return int(s.SourceScope)
			}
		}
	}
	return -1
}

func metric(t testing.TB, r *running, name, label string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := label == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetValue() == label
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestMetricNames(t *testing.T) {
	r := start(t, world(), dnsserver.Deps{})
	r.ask(t, "udp", question("play.edge.example.com.", dns.TypeA, "192.0.2.0/24"))
	r.ask(t, "tcp", question("play.edge.example.com.", dns.TypeA, "203.0.113.0/24"))
	for name, label := range map[string]string{
		"nearzone_dnsserver_steered_answers_total":   "us-west-2-lax-1a",
		"nearzone_dnsserver_fail_open_answers_total": "",
		"nearzone_dnsserver_queries_total":           "tcp",
	} {
		if got := metric(t, r, name, label); got != 1 {
			t.Errorf("%s{%s} = %v, want 1", name, label, got)
		}
	}
	if problems, err := testutil.GatherAndLint(r.reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}
