//go:build !linux

package stream

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const oobSize = 128

// received is what the kernel says about a datagram.
type received struct {
	local netip.Addr
	drops uint32 // Linux only
}

// listenOptions asks for the address that each datagram came to. Which family a socket has is not asked here: one of
// the two fails on a socket of the other family, and both may on a platform that has neither.
func listenOptions(conn *net.UDPConn, any bool) error {
	if any {
		_ = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true)
		_ = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true)
	}
	return nil
}

func parseOOB(oob []byte) received {
	var m6 ipv6.ControlMessage
	if m6.Parse(oob) == nil && m6.Dst != nil {
		return received{local: address(m6.Dst)}
	}
	var m4 ipv4.ControlMessage
	if m4.Parse(oob) == nil && m4.Dst != nil {
		return received{local: address(m4.Dst)}
	}
	return received{}
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func sourceOOB(local netip.Addr, _ *net.UDPConn) []byte {
	if local.Is4() {
		return (&ipv4.ControlMessage{Src: local.AsSlice()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: local.AsSlice()}).Marshal()
}
