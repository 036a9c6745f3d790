package dnsserver

import (
	"encoding/binary"
	"net/netip"
)

// subnet is an EDNS Client Subnet option of a query (RFC 7871). Its zero value is no option.
type subnet struct {
	present bool
	addr    netip.Addr // with zeros beyond bits; invalid when bits is 0
	bits    int        // SOURCE PREFIX-LENGTH
	wire    [20]byte   // the option as it came
	length  int        // of wire
}

const (
	familyNone = 0 // dig sends it with SOURCE 0
	familyIPv4 = 1
	familyIPv6 = 2
)

// parseSubnet reads the option's data. It is false for what RFC 7871 §6 wants answered with FORMERR: an unknown
// family, a SOURCE beyond the family's length, a SCOPE that is not 0, an address of more or fewer bytes than
// SOURCE needs, or with a bit set beyond it.
func parseSubnet(data []byte) (subnet, bool) {
	if len(data) < 4 {
		return subnet{}, false
	}
	s := subnet{present: true, bits: int(data[2])}
	address := data[4:]
	if data[3] != 0 || len(address) != (s.bits+7)/8 {
		return subnet{}, false
	}
	switch binary.BigEndian.Uint16(data) {
	case familyNone:
		if s.bits != 0 {
			return subnet{}, false
		}
	case familyIPv4:
		if s.bits > 32 {
			return subnet{}, false
		}
		var a [4]byte
		copy(a[:], address)
		s.addr = netip.AddrFrom4(a)
	case familyIPv6:
		if s.bits > 128 {
			return subnet{}, false
		}
		var a [16]byte
		copy(a[:], address)
		s.addr = netip.AddrFrom16(a)
	default:
		return subnet{}, false
	}
	if s.bits == 0 {
		s.addr = netip.Addr{} // "use nothing of mine"
	} else if p, err := s.addr.Prefix(s.bits); err != nil || p.Addr() != s.addr {
		return subnet{}, false
	}
	s.length = copy(s.wire[:], data)
	return s, true
}

// client is the address to steer by: that of the option, or the resolver's when there is none to use.
//
// A private network behind a public resolver tells nothing, so the resolver counts (RFC 7871 §10). Where the
// resolver is private too, private networks are how clients are told apart.
func (s *subnet) client(resolver netip.Addr) netip.Addr {
	if !s.addr.IsValid() || s.private(resolver).IsValid() {
		return resolver
	}
	return s.addr.Unmap()
}

// scope is the SCOPE PREFIX-LENGTH for an answer that holds in a network (RFC 7871 §7.2.1). It may be longer
// than SOURCE, which says that a longer one would get a better answer. Anything we cannot express in the
// option's family holds for no more than was asked.
func (s *subnet) scope(network netip.Prefix, resolver netip.Addr) int {
	if !s.addr.IsValid() {
		return 0
	}
	if p := s.private(resolver); p.IsValid() {
		return p.Bits()
	}
	switch {
	case !network.IsValid():
		return s.bits
	case network.Addr().Is4() == s.addr.Is4():
		return network.Bits()
	case network.Addr().Is4() && s.addr.Is4In6():
		return 96 + network.Bits()
	}
	return s.bits
}

// private is the private address space that the option is in, if the resolver is not in any.
func (s *subnet) private(resolver netip.Addr) netip.Prefix {
	if !s.addr.IsPrivate() || !public(resolver) {
		return netip.Prefix{}
	}
	bits := 7 // fc00::/7, RFC 4193
	if s.addr.Is4() {
		switch s.addr.As4()[0] { // RFC 1918
		case 10:
			bits = 8
		case 172:
			bits = 12
		default:
			bits = 16
		}
	}
	p, _ := s.addr.Prefix(bits) // bits fits the family
	return p
}

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate()
}

// echo is the option's data for the answer.
func (s *subnet) echo(scope int) []byte {
	data := append([]byte(nil), s.wire[:s.length]...)
	data[3] = byte(scope)
	return data
}
