package lab

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// path is what lies between two hosts.
type path struct {
	rtt  time.Duration
	loss float64
}

// plan is a checked Topology.
type plan struct {
	names  []string // sorted
	owner  []owned  // the narrowest prefix first
	paths  map[[2]string]path
	rest   path
	jitter time.Duration
	rand   *rand.Rand
}

type owned struct {
	prefix netip.Prefix
	host   string
}

func (t Topology) plan() (*plan, error) {
	p := &plan{
		names:  slices.Sorted(maps.Keys(t.Hosts)),
		paths:  map[[2]string]path{},
		rest:   path{t.Default, t.Loss},
		jitter: t.Jitter,
		rand:   rand.New(rand.NewPCG(t.Seed, 0)),
	}
	for _, name := range p.names {
		if err := p.host(name, t.Hosts[name]); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(p.owner, func(a, b owned) int { return b.prefix.Bits() - a.prefix.Bits() })
	for pair, rtt := range t.RTT {
		for _, name := range pair {
			if t.Hosts[name] == nil {
				return nil, fmt.Errorf("RTT of %v: no host %q (have: %s)", pair, name, strings.Join(p.names, ", "))
			}
		}
		p.paths[ordered(pair[0], pair[1])] = path{rtt, t.Loss}
	}
	return p, nil
}

func (p *plan) host(name string, addresses []string) error {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return fmt.Errorf("host %q: a name is letters, digits and hyphens", name)
	}
	for _, text := range addresses {
		prefix, err := parse(text)
		if err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
		for _, o := range p.owner {
			if o.prefix == prefix {
				return fmt.Errorf("host %s: %s belongs to %s", name, text, o.host)
			}
		}
		p.owner = append(p.owner, owned{prefix, name})
	}
	return nil
}

func parse(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		return prefix.Masked(), err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return addr.Prefix(addr.BitLen())
}

// find is the host that has an address, if any.
func (p *plan) find(addr netip.Addr) (string, bool) {
	for _, o := range p.owner {
		if o.prefix.Contains(addr) {
			return o.host, true
		}
	}
	return "", false
}

func (p *plan) between(a, b string) path {
	if v, ok := p.paths[ordered(a, b)]; ok {
		return v
	}
	return p.rest
}

// fate is how long a packet from a to b is under way; false if it is lost.
func (p *plan) fate(a, b string) (time.Duration, bool) {
	v := p.between(a, b)
	if v.loss > 0 && p.rand.Float64() < v.loss {
		return 0, false
	}
	delay := v.rtt / 2
	if p.jitter > 0 {
		delay += time.Duration(p.rand.Int64N(int64(p.jitter)))
	}
	return delay, true
}

func ordered(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }
