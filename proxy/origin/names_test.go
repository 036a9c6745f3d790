package origin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/proxy/origin"
)

// nameserver is a DNS server on loopback whose zone may be changed while it runs.
type nameserver struct {
	addr    netip.AddrPort
	queries atomic.Int32

	mu      sync.Mutex
	records map[string][]string // "name. TYPE" -> records
	rcode   int
}

func startDNS(t *testing.T, records map[string][]string) *nameserver {
	t.Helper()
	ns := &nameserver{records: records}
	udp, tcp := bothPorts(t)
	ns.addr = netip.MustParseAddrPort(udp.LocalAddr().String())
	for _, srv := range []*dns.Server{{PacketConn: udp, Handler: ns}, {Listener: tcp, Handler: ns}} {
		done, started := make(chan error, 1), make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { done <- srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = srv.Shutdown()
			<-done
		})
	}
	return ns
}

// bothPorts listens on one port of UDP and TCP that is free in both.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		udp.Close()
	}
	t.Fatal("no port is free in UDP and TCP")
	return nil, nil
}

func (ns *nameserver) set(rcode int, records map[string][]string) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	ns.rcode, ns.records = rcode, records
}

func (ns *nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	ns.queries.Add(1)
	ns.mu.Lock()
	defer ns.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	name := q.Question[0].Name
	m.Rcode = ns.rcode
	if ns.rcode == dns.RcodeSuccess {
		known := false
		for k, list := range ns.records {
			owner, qtype, _ := strings.Cut(k, " ")
			known = known || owner == name
			if owner == name && qtype == dns.TypeToString[q.Question[0].Qtype] {
				for _, r := range list {
					rr, err := dns.NewRR(r)
					if err != nil {
						panic(err)
					}
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
	}
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = int(opt.UDPSize())
	}
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); !tcp {
		m.Truncate(size)
	}
	_ = w.WriteMsg(m)
}

// resolver asks only this server, with files of the test.
func (ns *nameserver) resolver(t *testing.T, hosts, conf string) origin.Resolve {
	dir := t.TempDir()
	o := origin.ResolverOptions{Hosts: filepath.Join(dir, "hosts"), Config: filepath.Join(dir, "resolv.conf")}
	for path, text := range map[string]string{o.Hosts: hosts, o.Config: conf} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ns != nil {
		o.Servers = []netip.AddrPort{ns.addr}
	}
	o.Fallback = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.99")}, nil
	}
	return origin.NewResolver(o)
}

func TestResolver(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("many.example.net. 60 IN A 192.0.2.%d", i))
	}
	ns := startDNS(t, map[string][]string{
		"api.example.net. A":      {"api.example.net. 7 IN A 192.0.2.1", "api.example.net. 9 IN A 192.0.2.2"},
		"api.example.net. AAAA":   {"api.example.net. 8 IN AAAA 2001:db8::1"},
		"alias.example.net. A":    {"alias.example.net. 3 IN CNAME api.example.net.", "api.example.net. 7 IN A 192.0.2.1"},
		"empty.example.net. TXT":  {`empty.example.net. 5 IN TXT "x"`},
		"db.svc.cluster.local. A": {"db.svc.cluster.local. 5 IN A 192.0.2.3"},
		"many.example.net. A":     many,
		"mapped.example.net. AAAA": {
			"mapped.example.net. 5 IN AAAA ::ffff:192.0.2.4",
		},
	})
	hosts := "# comment\n192.0.2.7 box box.example.net # here\n2001:db8::7\tBOX\nbroken line\n\n"
	conf := "search svc.cluster.local cluster.local\noptions ndots:2 timeout:1\n"
	resolve := ns.resolver(t, hosts, conf)
	for _, tc := range []struct {
		host string
		want string
		ttl  time.Duration
	}{
		{"api.example.net", "192.0.2.1 192.0.2.2 2001:db8::1", 7 * time.Second},
		{"api.example.net.", "192.0.2.1 192.0.2.2 2001:db8::1", 7 * time.Second},
		{"alias.example.net", "192.0.2.1", 3 * time.Second},
		{"box", "192.0.2.7 2001:db8::7", 30 * time.Second},
		{"Box.Example.Net", "192.0.2.7", 30 * time.Second},
		{"db", "192.0.2.3", 5 * time.Second},
		{"mapped.example.net", "192.0.2.4", 5 * time.Second},
		{"empty.example.net", "", 0},
		{"nobody.example.net", "", 0},
	} {
		addrs, ttl, err := resolve(t.Context(), tc.host)
		if tc.want == "" {
			if err == nil || !strings.Contains(err.Error(), "no such host") {
				t.Errorf("%s: %v, %v, want no such host", tc.host, addrs, err)
			}
			continue
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		if got := joined(addrs); got != tc.want || ttl != tc.ttl || err != nil {
			t.Errorf("%s: %s for %v, %v, want %s for %v", tc.host, got, ttl, err, tc.want, tc.ttl)
		}
	}
	if addrs, _, err := resolve(t.Context(), "many.example.net"); err != nil || len(addrs) != 100 {
		t.Errorf("an answer over TCP: %d addresses, %v, want 100", len(addrs), err)
	}
}

func joined(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

func TestResolverFallsBackOnlyWhenNobodyAnswers(t *testing.T) {
	ns := startDNS(t, nil)
	ns.set(dns.RcodeServerFailure, nil)
	addrs, ttl, err := ns.resolver(t, "", "")(t.Context(), "api.example.net")
	if err != nil || joined(addrs) != "192.0.2.99" || ttl != 30*time.Second {
		t.Errorf("SERVFAIL: %v for %v, %v, want the fallback's", addrs, ttl, err)
	}
	ns.set(dns.RcodeNameError, nil)
	if addrs, _, err := ns.resolver(t, "", "")(t.Context(), "api.example.net"); err == nil {
		t.Errorf("NXDOMAIN: %v, want an error", addrs)
	}
	var none *nameserver
	if addrs, _, err := none.resolver(t, "", "")(t.Context(), "api.example.net"); err != nil || joined(addrs) != "192.0.2.99" {
		t.Errorf("no server: %v, %v, want the fallback's", addrs, err)
	}
}

func TestNamesFollowTheirTTL(t *testing.T) {
	ns := startDNS(t, map[string][]string{"api.example.net. A": {"api.example.net. 1 IN A 192.0.2.1"}})
	o := app("http://api.example.net:80")
	s := start(t, origin.Deps{Resolve: ns.resolver(t, "", "")}, o)
	p := s.Pool("app")
	addresses := func() string {
		var addrs []netip.Addr
		for _, st := range p.Status() {
			addrs = append(addrs, st.Address.Addr())
		}
		return joined(addrs)
	}
	eventually(t, "the name is resolved", func() bool { return addresses() == "192.0.2.1" })
	began := time.Now()
	ns.set(dns.RcodeSuccess, map[string][]string{"api.example.net. A": {
		"api.example.net. 1 IN A 192.0.2.2", "api.example.net. 1 IN A 192.0.2.3",
	}})
	eventually(t, "it is resolved again", func() bool { return addresses() == "192.0.2.2 192.0.2.3" })
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the change was seen after %v, the TTL is 1s", took)
	}
	ns.set(dns.RcodeNameError, nil)
	asked := ns.queries.Load()
	eventually(t, "it is asked in vain", func() bool { return ns.queries.Load() > asked+4 })
	if got := addresses(); got != "192.0.2.2 192.0.2.3" {
		t.Errorf("addresses = %s after failed resolutions, want those of before", got)
	}
}

func TestTTLIsBounded(t *testing.T) {
	var asked atomic.Int32
	start(t, origin.Deps{Resolve: func(context.Context, string) ([]netip.Addr, time.Duration, error) {
		asked.Add(1)
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, 0, nil
	}}, app("http://api.example.net:80"))
	eventually(t, "it is asked again", func() bool { return asked.Load() == 2 })
	began := time.Now()
	eventually(t, "it is asked a third time", func() bool { return asked.Load() == 3 })
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("a TTL of 0 was used for %v, want 1s", took)
	}
}

// resolveTo resolves every name to the addresses.
func resolveTo(addrs ...string) origin.Resolve {
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	return func(context.Context, string) ([]netip.Addr, time.Duration, error) { return list, time.Minute, nil }
}

func TestNamesMustNotLeadToThisMachine(t *testing.T) {
	url := serveName(t, "secret")
	o := app("http://rebind.example.net:" + strings.Split(hostOf(t, url), ":")[1])
	for _, addr := range []string{"127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "::1", "0.0.0.0"} {
		p := start(t, origin.Deps{Resolve: resolveTo(addr)}, o).Pool("app")
		_, body, err := get(t, p)
		if !errors.Is(err, origin.ErrRefused) || !errors.Is(err, origin.ErrNoServer) || !strings.Contains(err.Error(), "rebind.example.net") {
			t.Errorf("%s: %q, %v, want %v", addr, body, err, origin.ErrRefused)
		}
		if _, err := p.DialContext(t.Context(), "tcp", "k"); !errors.Is(err, origin.ErrRefused) {
			t.Errorf("%s: dial: %v, want %v", addr, err, origin.ErrRefused)
		}
		if p.Up() {
			t.Errorf("%s: up", addr)
		}
	}
	if _, body, err := get(t, pool(t, app(url))); err != nil || body != "secret" {
		t.Errorf("the address itself: %q, %v", body, err)
	}
}

func TestForbidden(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true, "::127.0.0.1": true,
		"0.0.0.0": true, "0.1.2.3": true, "::": true,
		"169.254.169.254": true, "169.254.170.2": true, "::ffff:169.254.169.254": true, "64:ff9b::a9fe:a9fe": true,
		"2002:a9fe:a9fe::1": true, "fe80::1": true, "fe80::1%eth0": true, "fd00:ec2::254": true, "fd00:ec2::23": true,
		"224.0.0.1": true, "ff02::1": true, "255.255.255.255": true,
		"10.0.1.20": false, "192.168.1.1": false, "203.0.113.1": false, "::ffff:203.0.113.1": false,
		"2001:db8::1": false, "fd12::1": false, "64:ff9b::cb00:7101": false,
	} {
		if got := origin.Forbidden(netip.MustParseAddr(addr)); (got != "") != want {
			t.Errorf("forbidden(%s) = %q, want refused %v", addr, got, want)
		}
	}
	if origin.Forbidden(netip.Addr{}) == "" {
		t.Error("the zero address is allowed")
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, records := range [][]string{
		{"a.example. 7 IN A 192.0.2.1"},
		{"a.example. 3 IN CNAME b.example.", "b.example. 9 IN A 192.0.2.1"},
		{`a.example. 3 IN TXT "x"`},
		nil,
	} {
		m := new(dns.Msg)
		m.SetQuestion("a.example.", dns.TypeA)
		m.Id, m.Response = 7, true
		for _, r := range records {
			rr, err := dns.NewRR(r)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		addrs, ttl, err := origin.ParseAnswer(msg, 7)
		if err == nil && (len(addrs) == 0 || ttl < 0 || ttl > time.Hour) {
			t.Errorf("addrs %v, ttl %v without an error", addrs, ttl)
		}
	})
}
