package dnsserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

// dataset is every zone we answer for. It is never changed once compiled.
type dataset struct {
	zones  map[string]*zone // by apex
	labels int              // of the longest apex
}

// zone is one domain. Names are fully qualified and lower case throughout.
type zone struct {
	apex   string
	labels int
	soa    *dns.SOA
	nodes  map[string]*node
}

// node is one name that exists, if only because another one below it does (an empty non-terminal, RFC 4592 §2.2.2).
type node struct {
	sets    map[uint16][]dns.RR
	steered string // what routing calls the name; empty: not steered
	wild    *node  // the `*` child
	cut     bool   // NS below the apex: others answer from here on
}

// Times to live of what we make ourselves, in seconds.
const (
	apexTTL     = 3600 // SOA, NS and the name servers' addresses
	negativeTTL = 60   // NXDOMAIN and NODATA: a name that is new in the configuration is seen soon
	anyTTL      = 3600
)

// compile makes the zones of a configuration. It reports everything that is wrong.
func compile(cfg *config.Config, zones []routing.Zone) (*dataset, error) {
	b := builder{data: &dataset{zones: map[string]*zone{}}}
	servers := nameServers(cfg, zones)
	for _, domain := range cfg.DNS.Domains {
		b.addZone(domain, serial(cfg), servers)
	}
	for _, n := range cfg.DNS.Names {
		b.addSteered(n.Name)
	}
	for _, r := range cfg.DNS.Records {
		b.addRecord(r)
	}
	for _, z := range b.data.zones {
		b.finish(z)
		b.findHidden(z)
		b.addServers(z, servers)
	}
	slices.SortFunc(b.errs, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
	return b.data, errors.Join(b.errs...)
}

// serial is the same on every node that has the same configuration. It does not grow with time, and need not:
// nobody copies these zones.
func serial(cfg *config.Config) uint32 {
	n, err := strconv.ParseUint(cfg.Hash[:min(8, len(cfg.Hash))], 16, 32)
	if err != nil || n == 0 {
		return 1
	}
	return uint32(n)
}

// addrs are the addresses of one name server.
type addrs []netip.Addr

// nameServers are the addressed nodes of the zones in dns.servers; by default those of home, else of every
// zone. A node that is in no zone is its own name server.
func nameServers(cfg *config.Config, zones []routing.Zone) (list []addrs) {
	wanted := cfg.DNS.Servers
	if len(wanted) == 0 && cfg.Home != "" {
		wanted = []string{cfg.Home}
	}
	if list = serversIn(zones, wanted); len(list) == 0 {
		var all []string
		for _, z := range zones {
			all = append(all, z.Name)
		}
		list = serversIn(zones, all)
	}
	if len(list) == 0 {
		list = []addrs{cfg.Node.Address}
	}
	return list
}

func serversIn(zones []routing.Zone, names []string) (list []addrs) {
	for _, name := range names {
		i := slices.IndexFunc(zones, func(z routing.Zone) bool { return z.Name == name })
		if i < 0 {
			continue
		}
		for _, n := range zones[i].Nodes {
			if n.V4.IsValid() || n.V6.IsValid() {
				list = append(list, addrs{n.V4, n.V6})
			}
		}
	}
	return list
}

// configured makes routing's zones of those in the file, as far as this package looks at them.
func configured(cfg *config.Config) (zones []routing.Zone) {
	for _, z := range cfg.Zones {
		zone := routing.Zone{Name: z.Name, Mode: z.Mode}
		for _, n := range z.Nodes {
			node := routing.Node{ID: n.ID(), Zone: z.Name}
			for _, a := range n.Addrs {
				if a.Is4() {
					node.V4 = a
				} else {
					node.V6 = a
				}
			}
			zone.Nodes = append(zone.Nodes, node)
		}
		zones = append(zones, zone)
	}
	return zones
}

// builder collects zones and what is wrong with them.
type builder struct {
	data *dataset
	errs []error
}

func (b *builder) errorf(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

func (b *builder) addZone(domain string, serial uint32, servers []addrs) {
	apex := fqdn(domain)
	if !isName(apex) || strings.HasPrefix(apex, "*") {
		b.errorf("dns.domains: %q is not a domain name such as edge.example.com", domain)
		return
	}
	labels := dns.CountLabel(apex)
	z := &zone{apex: apex, labels: labels, nodes: map[string]*node{}}
	z.soa = &dns.SOA{
		Hdr: header(apex, dns.TypeSOA, apexTTL), Ns: "ns1." + apex, Mbox: "hostmaster." + apex, Serial: serial,
		Refresh: 3600, Retry: 600, Expire: 1209600, Minttl: negativeTTL,
	}
	b.data.zones[apex] = z
	b.data.labels = max(b.data.labels, labels)
	z.node(apex).sets[dns.TypeSOA] = []dns.RR{z.soa}
}

// addServers makes the zone's NS records and their addresses. Both give way to static ones.
func (b *builder) addServers(z *zone, servers []addrs) {
	apex := z.nodes[z.apex]
	if own := apex.sets[dns.TypeNS]; len(own) > 0 {
		z.soa.Ns = own[0].(*dns.NS).Ns
		return
	}
	for i, list := range servers {
		name := "ns" + strconv.Itoa(i+1) + "." + z.apex
		apex.sets[dns.TypeNS] = append(apex.sets[dns.TypeNS], &dns.NS{Hdr: header(z.apex, dns.TypeNS, apexTTL), Ns: name})
		n := z.node(name)
		if n.steered != "" || len(n.sets) > 0 {
			continue
		}
		for _, a := range list {
			if a.IsValid() {
				rr := addressRR(name, a, apexTTL)
				n.sets[rr.Header().Rrtype] = append(n.sets[rr.Header().Rrtype], rr)
			}
		}
	}
}

// place finds the zone that a configured name belongs to.
func (b *builder) place(key, name string) *zone {
	if !isName(fqdn(name)) {
		b.errorf("%s: %q is not a host name of letters, digits, - and _", key, name)
		return nil
	}
	z := b.data.zoneOf(fqdn(name))
	if z == nil {
		b.errorf("%s: %q is under none of dns.domains", key, name)
	}
	return z
}

func (b *builder) addSteered(name string) {
	if z := b.place("dns.names", name); z != nil {
		z.node(fqdn(name)).steered = name
	}
}

func (b *builder) addRecord(r config.Record) {
	z := b.place("dns.records", r.Name)
	if z == nil {
		return
	}
	name := fqdn(r.Name)
	list, err := parseRecord(name, r)
	if err != nil {
		b.errs = append(b.errs, err)
		return
	}
	for _, rr := range list {
		typ := rr.Header().Rrtype
		z.node(name).sets[typ] = append(z.node(name).sets[typ], rr)
	}
}

// finish checks what only the whole zone shows, and marks cuts.
func (b *builder) finish(z *zone) {
	for name, n := range z.nodes {
		shown := strings.TrimSuffix(name, ".")
		if alias := n.sets[dns.TypeCNAME]; len(alias) > 0 {
			switch {
			case name == z.apex:
				b.errorf("dns.records: %q cannot be a CNAME: it has SOA and NS", shown)
			case len(alias) > 1 || len(n.sets) > 1:
				b.errorf("dns.records: %q is a CNAME, which allows no other record (RFC 1034 §3.6.2)", shown)
			case n.steered != "":
				b.errorf("dns.records: %q is a steered name and cannot be a CNAME too", shown)
			}
		}
		if n.steered != "" && (n.sets[dns.TypeA] != nil || n.sets[dns.TypeAAAA] != nil) {
			b.errorf("dns.records: %q is a steered name: its addresses come from routing", shown)
		}
		if n.sets[dns.TypeNS] == nil || name == z.apex {
			continue
		}
		n.cut = true
		if strings.HasPrefix(name, "*.") || n.steered != "" {
			b.errorf("dns.records: %q cannot be delegated: it is a wildcard or steered", shown)
		}
	}
}

// findHidden reports what nobody could ever ask for, since a delegation stands above it. Addresses are its glue.
func (b *builder) findHidden(z *zone) {
	for name, n := range z.nodes {
		if _, cut := z.find(name, false); cut == nil {
			continue
		}
		for typ := range n.sets {
			if allowed := typ == dns.TypeA || typ == dns.TypeAAAA || typ == dns.TypeNS && n.cut; !allowed {
				b.errorf("dns.records: %q has %s, but is delegated or below a delegation: others answer for it", strings.TrimSuffix(name, "."), dns.TypeToString[typ])
			}
		}
		if n.steered != "" && !n.cut {
			b.errorf("dns.names: %q is below a delegation in dns.records: others answer for it", n.steered)
		}
	}
}

// node finds or makes a name and every name between it and the apex.
func (z *zone) node(name string) *node {
	if n := z.nodes[name]; n != nil {
		return n
	}
	n := &node{sets: map[uint16][]dns.RR{}}
	z.nodes[name] = n
	if name == z.apex {
		return n
	}
	next, _ := dns.NextLabel(name, 0)
	parent := z.node(name[next:])
	if strings.HasPrefix(name, "*.") {
		parent.wild = n
	}
	return n
}

// isName accepts what needs no escape in presentation form, so that names can be compared as they are written.
func isName(name string) bool {
	_, ok := dns.IsDomainName(name)
	return ok && name != "." && !strings.ContainsFunc(strings.TrimPrefix(name, "*."), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
}

func fqdn(name string) string { return dns.Fqdn(strings.ToLower(name)) }

func header(name string, typ uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

func addressRR(name string, a netip.Addr, ttl uint32) dns.RR {
	if a = a.Unmap(); a.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA, ttl), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: a.AsSlice()}
}

// seconds rounds up, so that what lives at all lives a second.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d+time.Second-1, 0)/time.Second, 1<<31-1))
}
