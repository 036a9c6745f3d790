package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// sockets are what one dns.listen is bound to: a UDP and a TCP socket for each address.
type sockets struct {
	address string // as configured; empty: none
	udp     []net.PacketConn
	tcp     []net.Listener
}

func (k *sockets) addrs() (list []netip.AddrPort) {
	for _, ln := range k.tcp {
		if a, ok := ln.Addr().(*net.TCPAddr); ok {
			list = append(list, a.AddrPort())
		}
	}
	return list
}

func (k *sockets) close() {
	for _, c := range k.udp {
		_ = c.Close()
	}
	for _, ln := range k.tcp {
		_ = ln.Close()
	}
}

// bind opens the sockets of an address.
//
// A stub resolver on the machine (systemd-resolved on 127.0.0.53, dnsmasq on a bridge) keeps the wildcard address
// from being bound. Then each address of the machine's interfaces is bound by itself, and those that are held
// are left out.
func (s *Server) bind(address string) (*sockets, error) {
	if address == "" {
		return &sockets{}, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dns.listen: %q: %w; write it as \":53\" or \"192.0.2.1:53\"", address, err)
	}
	k := &sockets{address: address}
	err = s.open(k, host, port)
	if errors.Is(err, syscall.EADDRINUSE) && wildcard(host) {
		err = s.bindEach(k, port, err)
	}
	if err != nil {
		k.close()
		return nil, fmt.Errorf("dns.listen: %q: %w; %s", address, err, remedy(err, port))
	}
	return k, nil
}

func wildcard(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}

// bindEach binds the addresses of the machine one by one. cause is why the wildcard could not be, and why
// nothing is when no address that others can reach is left.
func (s *Server) bindEach(k *sockets, port string, cause error) error {
	ifaces, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the machine's addresses: %w", err)
	}
	wanted, bound, outside, outsideBound := 0, 0, 0, 0
	for _, i := range ifaces {
		ip, ok := i.(*net.IPNet)
		if !ok || ip.IP.IsLinkLocalUnicast() || ip.IP.IsMulticast() {
			continue
		}
		reachable := !ip.IP.IsLoopback()
		wanted, outside = wanted+1, outside+count(reachable)
		switch err := s.open(k, ip.IP.String(), port); {
		case err == nil:
			bound, outsideBound = bound+1, outsideBound+count(reachable)
		case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EADDRNOTAVAIL): // held, or gone in the meantime
			s.log.Warn("dns address is left out", "address", net.JoinHostPort(ip.IP.String(), port), "err", err)
		default:
			return err
		}
	}
	if bound == 0 || outside > 0 && outsideBound == 0 {
		return cause
	}
	s.log.Info("dns is bound to each address by itself, since another process holds the port on one; addresses that come later need a restart",
		"port", port, "bound", bound, "of", wanted)
	return nil
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// open binds UDP and TCP of one address. With port 0 both get the same port.
func (s *Server) open(k *sockets, host, port string) error {
	tries := 1
	if port == "0" {
		tries = 16 // what is free for one may be taken for the other
	}
	var err error
	for range tries {
		var pair sockets
		if err = s.openPair(&pair, host, port); err == nil {
			k.udp, k.tcp = append(k.udp, pair.udp...), append(k.tcp, pair.tcp...)
			return nil
		}
		pair.close()
	}
	return err
}

func (s *Server) openPair(k *sockets, host, port string) error {
	ln, err := s.deps.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	k.tcp = append(k.tcp, ln)
	if a, ok := ln.Addr().(*net.TCPAddr); ok {
		port = strconv.Itoa(a.Port)
	}
	pc, err := s.deps.ListenPacket("udp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	k.udp = append(k.udp, pc)
	if conn, ok := pc.(*net.UDPConn); ok {
		return s.tune(conn, wildcard(host))
	}
	return nil
}

// receiveBuffer takes a burst of some ten thousand queries while all cores are busy; the kernel may grant less.
const receiveBuffer = 4 << 20

func (s *Server) tune(conn *net.UDPConn, anyAddress bool) error {
	if err := conn.SetReadBuffer(receiveBuffer); err != nil {
		s.log.Debug("dns receive buffer stays as it is", "err", err)
	}
	if !anyAddress {
		return nil
	}
	if err := askDestination(conn); err != nil {
		return fmt.Errorf("ask for the destination of packets: %w", err)
	}
	return nil
}

// remedy says what the operator can do about a bind error.
func remedy(err error, port string) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process holds it, often a DNS server such as systemd-resolved, dnsmasq or named (`ss -lntup 'sport = :" + port + "'` tells): stop it, or choose another address or port"
	case errors.Is(err, os.ErrPermission):
		return "ports below 1024 need CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service=+ep nearzone`, AmbientCapabilities= in systemd, or root), or choose another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address (on EC2 it has the private one only): use \":" + port + "\" for all of them"
	}
	return "use an address of this machine with a port, such as \":53\""
}
