package dnsserver

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// maxQuery is the largest query read. Real ones have a name of at most 255 bytes and a few options.
const maxQuery = 4096

// service is the goroutines on one set of sockets.
type service struct {
	srv      *Server
	sockets  *sockets
	stopping atomic.Bool
	done     chan struct{} // closed when stopping
	work     sync.WaitGroup
	tcp      tcpConns
}

// serve starts answering on sockets. The caller must stop what it returns.
func (s *Server) serve(k *sockets) *service {
	v := &service{srv: s, sockets: k, done: make(chan struct{}), tcp: newTCPConns()}
	for _, pc := range k.udp {
		// A reader for each core: they take turns at the socket, and answer side by side.
		for range runtime.GOMAXPROCS(0) {
			v.work.Go(func() { v.serveUDP(pc) })
		}
	}
	for _, ln := range k.tcp {
		v.work.Go(func() { v.serveTCP(ln) })
	}
	return v
}

// past unblocks reads.
var past = time.Unix(1, 0)

// stop closes the sockets once what has been read is answered.
func (v *service) stop() {
	v.stopping.Store(true)
	close(v.done)
	for _, ln := range v.sockets.tcp {
		_ = ln.Close()
	}
	for _, pc := range v.sockets.udp {
		_ = pc.SetReadDeadline(past)
	}
	v.tcp.interrupt()
	v.work.Wait()
	v.sockets.close()
}

// serveUDP answers packets of one socket until it closes.
func (v *service) serveUDP(pc net.PacketConn) {
	in := make([]byte, maxQuery)
	out := make([]byte, 2*maxUDP) // room for a message before compression
	var wait backoff
	conn, _ := pc.(*net.UDPConn)
	for {
		var err error
		if conn != nil {
			err = v.udpOnce(conn, in, out)
		} else {
			err = v.packetOnce(pc, in, out)
		}
		if err == nil {
			wait.reset()
			continue
		}
		if v.stopping.Load() || errors.Is(err, net.ErrClosed) {
			return
		}
		v.srv.log.Warn("dns packet not read", "address", pc.LocalAddr(), "err", err)
		if !wait.sleep(v.done) {
			return
		}
	}
}

// udpOnce reads one packet and answers it from the address it was sent to.
func (v *service) udpOnce(conn *net.UDPConn, in, out []byte) error {
	var oob [oobSize]byte
	n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(in, oob[:])
	if err != nil {
		return err
	}
	answer := v.srv.respond(in[:n], plain(from.Addr()), overUDP, out)
	if answer == nil {
		return nil
	}
	if _, _, err := conn.WriteMsgUDPAddrPort(answer, answerFrom(oob[:oobn]), from); err != nil {
		v.srv.metrics.unsent.Inc() // the resolver asks again; nothing to be done about it here
	}
	return nil
}

// packetOnce is udpOnce for sockets that are not the kernel's.
func (v *service) packetOnce(pc net.PacketConn, in, out []byte) error {
	n, addr, err := pc.ReadFrom(in)
	if err != nil {
		return err
	}
	from, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return nil // steering needs an address
	}
	if answer := v.srv.respond(in[:n], plain(from.Addr()), overUDP, out); answer != nil {
		if _, err := pc.WriteTo(answer, addr); err != nil {
			v.srv.metrics.unsent.Inc()
		}
	}
	return nil
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// backoff waits longer after each failure in a row, up to a second.
type backoff struct{ d time.Duration }

func (b *backoff) reset() { b.d = 0 }

// sleep is false when done was closed.
func (b *backoff) sleep(done <-chan struct{}) bool {
	b.d = min(max(2*b.d, 5*time.Millisecond), time.Second)
	timer := time.NewTimer(b.d)
	defer timer.Stop()
	select {
	case <-done:
		return false
	case <-timer.C:
		return true
	}
}
