package dnsserver

import (
	"encoding/binary"
	"net"
	"syscall"
)

// A socket bound to every address must answer from the one that was asked, or resolvers drop the answer. So the
// kernel is asked for the destination of each packet (ip(7), ipv6(7)), and told it back with the answer.

// oobSize holds one IPV6_PKTINFO, the larger of the two.
const oobSize = 64

// askDestination turns the information on. A dual-stack socket reports IPv4 too, as mapped addresses.
func askDestination(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
		if set != nil {
			set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		}
	})
	if err != nil {
		return err
	}
	return set
}

// answerFrom turns what came with a packet into what goes with its answer, in place: the destination becomes the
// source, and the interface is left to routing, for packets may come and go by different ones.
func answerFrom(oob []byte) []byte {
	head := syscall.CmsgLen(0)
	if len(oob) < syscall.SizeofCmsghdr {
		return nil
	}
	level := binary.NativeEndian.Uint32(oob[syscall.SizeofCmsghdr-8:])
	typ := binary.NativeEndian.Uint32(oob[syscall.SizeofCmsghdr-4:])
	data := oob[min(head, len(oob)):]
	switch {
	case level == syscall.IPPROTO_IP && typ == syscall.IP_PKTINFO && len(data) >= syscall.SizeofInet4Pktinfo:
		clear(data[:4]) // struct in_pktinfo: ifindex, spec_dst, addr
		return oob[:syscall.CmsgSpace(syscall.SizeofInet4Pktinfo)]
	case level == syscall.IPPROTO_IPV6 && typ == syscall.IPV6_PKTINFO && len(data) >= syscall.SizeofInet6Pktinfo:
		if linkLocal := data[0] == 0xfe && data[1]&0xc0 == 0x80; !linkLocal {
			clear(data[16:20]) // struct in6_pktinfo: addr, ifindex
		}
		return oob[:syscall.CmsgSpace(syscall.SizeofInet6Pktinfo)]
	}
	return nil
}
