package stream

import (
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// maxHeader is the longest PROXY protocol v2 header we send: 16 bytes and two IPv6 addresses with ports.
const maxHeader = 52

// proxyHeader tells a server who the client is and which address it spoke to: nil if version is empty. Both addresses
// are of one family here, since they are the ends of one connection.
func proxyHeader(version, network string, client, local netip.AddrPort) ([]byte, error) {
	if version == "" {
		return nil, nil
	}
	number := byte(2)
	if version == "v1" {
		number = 1
	}
	client, local = unmap(client), unmap(local)
	var from, to net.Addr = net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(local)
	if network == "udp" {
		from, to = net.UDPAddrFromAddrPort(client), net.UDPAddrFromAddrPort(local)
	}
	return proxyproto.HeaderProxyFromAddrs(number, from, to).Format()
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
