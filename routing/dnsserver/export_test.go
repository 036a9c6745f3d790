package dnsserver

import "net/netip"

// Respond answers a packet without sockets.
func (s *Server) Respond(pkt []byte, from netip.Addr, tcp bool, buf []byte) []byte {
	via := overUDP
	if tcp {
		via = overTCP
	}
	return s.respond(pkt, from, via, buf)
}

// Limits that tests run into.
const (
	MaxUDP       = maxUDP
	MaxConns     = maxConns
	MaxConnsPeer = maxConnsPeer
)
