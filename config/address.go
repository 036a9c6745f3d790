package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Patterns of the schema. They are looser than the parsers, which know what an address is.
const (
	addrPattern     = `[0-9a-fA-F:.]+`
	prefixPattern   = `[0-9a-fA-F:.]+(/[0-9]{1,3})?`
	hostPortPattern = `(\[[0-9a-fA-F:]+\]|[^:\[\]]*):[0-9]{1,5}`
)

func address(into *netip.Addr) scalar {
	return value(into, "an address such as 203.0.113.10 or 2001:db8::10", matching(addrPattern), parseAddr)
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, errors.New("is not an address")
	case a.Zone() != "":
		return netip.Addr{}, errors.New("names an interface")
	case a.IsUnspecified() || a.IsMulticast():
		return netip.Addr{}, errors.New("is nobody's address")
	}
	return a.Unmap(), nil
}

// prefix is a network, or one address as the network of itself.
func prefix(into *netip.Prefix) scalar {
	return value(into, "a network such as 10.0.0.0/16, or an address", matching(prefixPattern), parsePrefix)
}

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("is not a network")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, errors.New("is not a network")
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("has bits beyond its length, did you mean %q?", p.Masked())
	}
	return p, nil
}

// listenAddr is where a socket is bound: a port on every address, or on one. `off` is empty.
func listenAddr(into *string) scalar {
	s := value(into, `host:port, such as ":80" or "127.0.0.1:8080"`, matching(hostPortPattern), parseListen)
	return orOff(s, into)
}

// orOff lets off (and false) stand for the empty string, also where the default is another.
func orOff(s scalar, into *string) scalar {
	store := s.store
	s.store = func(text string) error {
		if text == "off" || text == "false" {
			*into = ""
			return nil
		}
		return store(text)
	}
	s.want += ", or off"
	s.json = object{"anyOf": []object{{"enum": []any{"off", false}}, s.json}}
	return s
}

func parseListen(s string) (string, error) {
	host, _, err := splitHostPort(s, 0)
	if err != nil {
		return "", err
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", errors.New("names a host, which would need a look-up")
		}
	}
	return s, nil
}

// splitHostPort insists on a port of at least low.
func splitHostPort(s string, low int) (host string, port uint16, err error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < 65536 {
		return "", 0, fmt.Errorf("lacks a colon, did you mean \":%d\"?", n)
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, errors.New("is not host:port")
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > 65535 || text != strconv.Itoa(n) {
		return "", 0, fmt.Errorf("has no port from %d to 65535", low)
	}
	return host, uint16(n), nil
}

// dialAddr is where to connect: host:port, both given.
func dialAddr(into *string) scalar {
	want := "host:port, such as 198.51.100.5:7422"
	return value(into, want, matching(hostPortPattern), func(s string) (string, error) {
		host, _, err := splitHostPort(s, 1)
		if err == nil && !isHost(host) {
			err = errors.New("has no host before the port")
		}
		return s, err
	})
}

// isHost accepts an address or a host name.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == ""
	}
	return isHostname(s)
}

// isHostname accepts the names of hosts and DNS owners: labels of letters, digits, hyphens and underscores
// (RFC 2181 §11 allows more; nothing that names a host uses it). A last label of digits is a broken address.
func isHostname(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if !isLabel(l) {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != ""
}

func isLabel(l string) bool {
	if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		if !isNameByte(l[i]) {
			return false
		}
	}
	return true
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// hostname is a host name in lower case, without the dot at its end.
func hostname(into *string) scalar {
	want := "a host name such as play.example.com"
	return value(into, want, object{"type": "string"}, parseHostname)
}

func parseHostname(s string) (string, error) {
	h := strings.TrimSuffix(strings.ToLower(s), ".")
	switch {
	case strings.ContainsAny(s, "/:"):
		return "", errors.New("has a scheme, port or path")
	case !isHostname(h):
		return "", errors.New("is not a host name")
	}
	return h, nil
}

// siteHost is a host name, `*.` before one, or `*` alone.
func siteHost(into *string) scalar {
	want := `a host name, "*.example.com", or "*" for every Host`
	return value(into, want, object{"type": "string"}, func(s string) (string, error) {
		if s == "*" {
			return s, nil
		}
		rest, wild := strings.CutPrefix(s, "*.")
		h, err := parseHostname(rest)
		if a, e := netip.ParseAddr(strings.Trim(s, "[]")); e == nil {
			return a.String(), nil
		}
		if wild {
			h = "*." + h
		}
		return h, err
	})
}

// nounName checks a name of the operator's choosing, which becomes a label of metrics and a word of commands.
func nounName(s string) error {
	if len(s) == 0 || len(s) > 63 || strings.IndexFunc(s, func(r rune) bool { return r > 127 || !isNameByte(byte(r)) }) >= 0 {
		return fmt.Errorf("%s is not a name: want letters, digits, - and _, at most 63", quote(s))
	}
	return nil
}

func zoneName(s string) error {
	if !isLabel(s) || s != strings.ToLower(s) || strings.Contains(s, "_") {
		return fmt.Errorf("%s is not the name of a zone: want it as AWS has it, such as us-west-2-lax-1a", quote(s))
	}
	return nil
}
