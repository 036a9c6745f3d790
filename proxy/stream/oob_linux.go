package stream

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// oobSize holds what listenOptions asks the kernel to tell with each datagram.
const oobSize = 128

// listenOptions asks for the address that each datagram came to, where any is set, and for the number of datagrams
// that the kernel had no room for.
func listenOptions(conn *net.UDPConn, any bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	v6 := isIPv6(conn)
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		sockErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
		if sockErr == nil && any && v6 {
			sockErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else if sockErr == nil && any {
			sockErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	}); err != nil {
		return err
	}
	return sockErr
}

// isIPv6 tells an IPv6 socket, which may take IPv4 as well, from an IPv4 one. The address does not say.
func isIPv6(conn *net.UDPConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	domain := 0
	_ = raw.Control(func(fd uintptr) { domain, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN) })
	return domain == unix.AF_INET6
}

// received is what the kernel says about a datagram.
type received struct {
	local netip.Addr // that it came to; invalid if not asked for
	drops uint32     // of the socket so far
}

// Sizes and places in struct cmsghdr, in_pktinfo {ifindex, spec_dst, addr} and in6_pktinfo {addr, ifindex}.
const (
	cmsgHeader   = unix.SizeofCmsghdr
	specDst      = 4
	pktinfo4Size = unix.SizeofInet4Pktinfo
	pktinfo6Size = unix.SizeofInet6Pktinfo
)

// parseOOB reads control messages (cmsg(3)). It is by hand because the libraries allocate for each datagram.
func parseOOB(oob []byte) (r received) {
	for len(oob) >= cmsgHeader {
		length := int(cmsgLen(oob))
		if length < cmsgHeader || length > len(oob) {
			return r
		}
		level := int32(binary.NativeEndian.Uint32(oob[cmsgHeader-8:]))
		kind := int32(binary.NativeEndian.Uint32(oob[cmsgHeader-4:]))
		data := oob[cmsgHeader:length]
		switch {
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= pktinfo4Size:
			r.local = netip.AddrFrom4([4]byte(data[specDst:]))
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= pktinfo6Size:
			r.local = netip.AddrFrom16([16]byte(data)).Unmap()
		case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL && len(data) >= 4:
			r.drops = binary.NativeEndian.Uint32(data)
		}
		oob = oob[min(unix.CmsgSpace(len(data)), len(oob)):]
	}
	return r
}

// cmsgLen is the header's first field, a size_t.
func cmsgLen(oob []byte) uint64 {
	if cmsgHeader == 12 {
		return uint64(binary.NativeEndian.Uint32(oob))
	}
	return binary.NativeEndian.Uint64(oob)
}

// sourceOOB makes a datagram leave from an address.
func sourceOOB(local netip.Addr, conn *net.UDPConn) []byte {
	if !isIPv6(conn) {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}
