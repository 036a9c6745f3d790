package origin

import (
	"fmt"
	"net/netip"
)

var (
	thisNetwork  = netip.MustParsePrefix("0.0.0.0/8") // RFC 1122 §3.2.1.3; Linux connects 0.0.0.0 to itself
	broadcast    = netip.MustParseAddr("255.255.255.255")
	nat64        = netip.MustParsePrefix("64:ff9b::/96")  // RFC 6052: the last four bytes are an IPv4 address
	v4Compatible = netip.MustParsePrefix("::/96")         // RFC 4291 §2.5.5.1: likewise
	sixToFour    = netip.MustParsePrefix("2002::/16")     // RFC 3056: bytes 2 to 5 are
	instance     = netip.MustParsePrefix("fd00:ec2::/32") // EC2's own services over IPv6: metadata, DNS, time, pod identity
)

// forbidden says why a hostname must not lead to addr, empty when it may. Whoever controls a name's records must
// not reach what only this machine may: its own services, and the credentials of its role.
func forbidden(addr netip.Addr) string {
	addr = innermost(addr)
	switch {
	case !addr.IsValid() || addr.IsUnspecified() || thisNetwork.Contains(addr):
		return "unspecified"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsLinkLocalUnicast(): // 169.254.169.254 among them
		return "link-local"
	case instance.Contains(addr):
		return "instance metadata"
	case addr.IsMulticast() || addr == broadcast:
		return "multicast"
	}
	return ""
}

// innermost is the IPv4 address that an IPv6 address carries, or the address itself.
func innermost(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() || addr.IsLoopback() || addr.IsUnspecified() {
		return addr
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr), v4Compatible.Contains(addr):
		return v4(b[12:])
	case sixToFour.Contains(addr):
		return v4(b[2:6])
	}
	return addr
}

func v4(b []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(b[:4])
	return addr
}

// admit splits what a hostname resolved to into addresses to use and the error about the others.
func admit(host string, addrs []netip.Addr) (use []netip.Addr, err error) {
	for _, addr := range addrs {
		if why := forbidden(addr); why != "" {
			err = fmt.Errorf("%w: %s leads to %s, which is %s: write the address itself as the server if that is meant", ErrRefused, host, addr, why)
			continue
		}
		use = append(use, addr.Unmap())
	}
	return use, err
}
