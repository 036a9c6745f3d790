package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Resolve finds the addresses of a hostname and how long they hold. It may be called from several goroutines.
type Resolve func(ctx context.Context, host string) (addrs []netip.Addr, ttl time.Duration, err error)

// ResolverOptions are where a resolver finds its answers. The zero value is the system's configuration.
type ResolverOptions struct {
	Hosts   string           // default /etc/hosts
	Config  string           // default /etc/resolv.conf
	Servers []netip.AddrPort // instead of those of Config
	// Fallback answers when no name server does, without a TTL: 30s is assumed. Default: net.DefaultResolver,
	// which knows the system's other ways to a name.
	Fallback func(ctx context.Context, host string) ([]netip.Addr, error)
}

const (
	// plainTTL is assumed where an answer has none: the hosts file and the fallback.
	plainTTL = 30 * time.Second
	// maxFile bounds what is read of a hosts file or resolv.conf.
	maxFile = 1 << 20
	// maxSearch and maxServers are those of resolv.conf(5).
	maxSearch  = 6
	maxServers = 3
)

// errNoName is the answer that there is no such name, or no address of it.
var errNoName = errors.New("no such host")

// resolver is a stub resolver that tells TTLs, which the one of package net does not.
type resolver struct{ ResolverOptions }

// NewResolver makes a Resolve that looks into the hosts file, then asks the name servers of resolv.conf, with its
// search list, for A and AAAA. Both files are read anew each time.
func NewResolver(o ResolverOptions) Resolve {
	if o.Hosts == "" {
		o.Hosts = "/etc/hosts"
	}
	if o.Config == "" {
		o.Config = "/etc/resolv.conf"
	}
	if o.Fallback == nil {
		o.Fallback = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return resolver{o}.resolve
}

func (r resolver) resolve(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	if addrs := fromHosts(r.Hosts, host); len(addrs) > 0 {
		return addrs, plainTTL, nil
	}
	conf := readResolvConf(r.Config)
	if len(r.Servers) > 0 {
		conf.servers = r.Servers
	}
	addrs, ttl, err := conf.lookup(ctx, host)
	if err == nil || errors.Is(err, errNoName) {
		return addrs, ttl, err
	}
	addrs, fallbackErr := r.Fallback(ctx, host)
	if fallbackErr != nil {
		return nil, 0, errors.Join(err, fallbackErr)
	}
	return addrs, plainTTL, nil
}

// fromHosts lists the addresses that a hosts file gives a name.
func fromHosts(path, host string) []netip.Addr {
	var addrs []netip.Addr
	host = strings.TrimSuffix(host, ".")
	eachLine(path, func(fields []string) {
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			return
		}
		for _, name := range fields[1:] {
			if strings.EqualFold(strings.TrimSuffix(name, "."), host) {
				addrs = append(addrs, addr.Unmap())
			}
		}
	})
	return addrs
}

// resolvConf is what we take from resolv.conf(5).
type resolvConf struct {
	servers []netip.AddrPort
	search  []string
	ndots   int
}

// readResolvConf never fails: without a file there is no server to ask, and the fallback is next.
func readResolvConf(path string) resolvConf {
	c := resolvConf{ndots: 1}
	eachLine(path, func(fields []string) {
		switch args := fields[1:]; fields[0] {
		case "nameserver":
			if len(args) > 0 && len(c.servers) < maxServers {
				if addr, err := netip.ParseAddr(args[0]); err == nil {
					c.servers = append(c.servers, netip.AddrPortFrom(addr, 53))
				}
			}
		case "domain", "search": // the last one counts
			c.search = args[:min(len(args), maxSearch)]
		case "options":
			for _, o := range args {
				if v, is := strings.CutPrefix(o, "ndots:"); is {
					if n, err := strconv.Atoi(v); err == nil {
						c.ndots = min(max(n, 0), 15)
					}
				}
			}
		}
	})
	return c
}

// eachLine gives the fields of each line of a file that has any, comments removed.
func eachLine(path string, fn func(fields []string)) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxFile))
	for lines.Scan() {
		line := lines.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if fields := strings.Fields(line); len(fields) > 0 {
			fn(fields)
		}
	}
}

// names are the absolute names to try for a host, in order.
func (c resolvConf) names(host string) []string {
	if strings.HasSuffix(host, ".") {
		return []string{host}
	}
	var names []string
	for _, suffix := range c.search {
		names = append(names, host+"."+strings.TrimSuffix(suffix, ".")+".")
	}
	if strings.Count(host, ".") >= c.ndots {
		return append([]string{host + "."}, names...)
	}
	return append(names, host+".")
}

// lookup asks for each name until one has addresses.
func (c resolvConf) lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	if len(c.servers) == 0 {
		return nil, 0, errors.New("no name server configured")
	}
	for _, name := range c.names(host) {
		addrs, ttl, err := c.addresses(ctx, name)
		if err == nil || !errors.Is(err, errNoName) {
			return addrs, ttl, err
		}
	}
	return nil, 0, fmt.Errorf("resolve %s: %w", host, errNoName)
}
