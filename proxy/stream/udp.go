package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxDatagram is what a UDP datagram can carry at most, and a little more to see that it was too much.
	maxDatagram = 1 << 16
	// receiveBuffer is what we ask the kernel to hold for us. At 100,000 datagrams of 200 bytes a second (each costs
	// the kernel about 800 bytes) 4 MiB bridge 50 ms in which we do not run. The kernel caps it at net.core.rmem_max.
	receiveBuffer = 4 << 20
	// crowdOut is how many sessions a second may give way when the table is full: some 150 ms of one core's time.
	crowdOut = 5000
)

// flow is what makes a session: the client, and the address that it spoke to (a host may have several).
type flow struct {
	client netip.AddrPort
	local  netip.Addr
}

// udpRelay is a UDP socket and its sessions. One goroutine reads the socket; each session has one that reads what its
// server sends. Both directions of a session are read by one goroutine each, so its order is kept.
type udpRelay struct {
	shared
	conn     *net.UDPConn
	local    netip.AddrPort
	any      bool // bound to every address, so that datagrams tell which one they came to
	shutting atomic.Bool
	kernel   uint32 // datagrams that the kernel says it dropped; the receiving goroutine's own
	crowding *rate.Limiter

	mu     sync.Mutex // guards all below; the receiving goroutine takes it for each datagram, others only when a session ends
	flows  map[flow]*udpSession
	pinned bool
	closed bool
	tasks  sync.WaitGroup
}

func newUDPRelay(s shared, address string) (*udpRelay, error) {
	pc, err := s.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		_ = pc.Close()
		return nil, fmt.Errorf("a %T cannot be relayed from, it takes a *net.UDPConn", pc)
	}
	local := addrPort(conn.LocalAddr())
	r := &udpRelay{shared: s, conn: conn, local: local, any: local.Addr().IsUnspecified(), flows: map[flow]*udpSession{},
		crowding: rate.NewLimiter(crowdOut, crowdOut/10)}
	if err := listenOptions(conn, r.any); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("prepare udp socket %s: %w", address, err)
	}
	_ = conn.SetReadBuffer(receiveBuffer) // less than asked for is still right, and drops are counted
	s.locals.add(local)
	return r, nil
}

func (r *udpRelay) addr() net.Addr { return r.conn.LocalAddr() }
func (r *udpRelay) isShut() bool   { return r.shutting.Load() }

func (r *udpRelay) sessions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.flows)
}

func (r *udpRelay) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shutting.Store(true)
	r.closeIfDone()
}

func (r *udpRelay) reopen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shutting.Store(false)
	r.pinned = false
}

func (r *udpRelay) pin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pinned = !r.closed
	return r.pinned
}

func (r *udpRelay) unpin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pinned = false
	r.closeIfDone()
}

// closeIfDone closes the socket of a relay that takes no new session and has none. The caller holds mu.
func (r *udpRelay) closeIfDone() {
	if r.shutting.Load() && !r.pinned && len(r.flows) == 0 && !r.closed {
		r.closed = true
		_ = r.conn.Close()
		r.locals.remove(r.local)
	}
}

func (r *udpRelay) endAll(why ending) {
	for _, s := range r.list() {
		s.end(why)
	}
}

func (r *udpRelay) close(why ending) {
	r.mu.Lock()
	r.pinned = false
	r.shutting.Store(true)
	r.mu.Unlock()
	r.endAll(why)
	r.shut()
}

func (r *udpRelay) list() []*udpSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*udpSession, 0, len(r.flows))
	for _, s := range r.flows {
		out = append(out, s)
	}
	return out
}

// serve reads the clients' datagrams until the socket is closed, and waits for the sessions.
func (r *udpRelay) serve(ctx context.Context) {
	defer r.tasks.Wait()
	buf := make([]byte, maxHeader+maxDatagram)
	oob := make([]byte, oobSize)
	for pause := time.Duration(0); ; {
		n, oobn, _, client, err := r.conn.ReadMsgUDPAddrPort(buf[maxHeader:], oob)
		switch {
		case err == nil:
			pause = 0
			r.receive(ctx, unmap(client), oob[:oobn], buf[:maxHeader+n])
		case errors.Is(err, net.ErrClosed):
			return
		default:
			pause = min(max(2*pause, time.Millisecond), time.Second)
			r.Log.Warn("stream does not receive", "stream", r.policy.Load().name, "pause", pause, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

// receive passes one datagram to its session, or begins one. The datagram lies in packet behind maxHeader bytes of
// room, and is the caller's again afterwards.
func (r *udpRelay) receive(ctx context.Context, client netip.AddrPort, oob, packet []byte) {
	info := parseOOB(oob)
	r.overflow(info.drops)
	f := flow{client, r.local.Addr()}
	if r.any {
		f.local = localOf(client.Addr(), info.local)
	}
	for range 2 { // a session may end while we look at it, or by this very datagram; then it begins another
		s := r.session(ctx, f)
		if s == nil || s.forward(packet) {
			return
		}
	}
	r.policy.Load().count.drop(dropRefused, 1)
}

// localOf is the address that a client spoke to on a socket bound to all: what the kernel said, or of the client's
// family at least.
func localOf(client, told netip.Addr) netip.Addr {
	switch {
	case told.IsValid() && told.Is4() == client.Is4():
		return told
	case client.Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// overflow counts what the kernel dropped; its counter is 32 bits of all the socket's life.
func (r *udpRelay) overflow(drops uint32) {
	if drops != r.kernel && drops != 0 {
		r.policy.Load().count.drop(dropKernel, int(drops-r.kernel))
		r.kernel = drops
	}
}

// session finds or begins the session of a flow. Nil means that there is none and the datagram was counted.
func (r *udpRelay) session(ctx context.Context, f flow) *udpSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.flows[f]; s != nil {
		return s
	}
	p := r.policy.Load()
	switch {
	case !r.answerable(f):
		p.count.drop(dropSource, 1)
	case r.shutting.Load() || r.closed:
		p.count.drop(dropDraining, 1)
	case len(r.flows) >= p.max && !r.makeRoom():
		p.count.drop(dropFull, 1)
	default:
		return r.begin(ctx, p, f)
	}
	return nil
}

// makeRoom takes the oldest of a few sessions off a full table whose client has not been heard of after an answer: a
// datagram from a forged source makes no other kind. It does so only so often, because beginning a session costs more
// than dropping its datagram. The caller holds mu.
func (r *udpRelay) makeRoom() bool {
	if !r.crowding.Allow() {
		return false
	}
	var oldest *udpSession
	looked, seen := 0, 0
	for _, s := range r.flows { // from a random place on
		if looked++; !s.confirmed.Load() {
			seen++
			if oldest == nil || s.began.Before(oldest.began) {
				oldest = s
			}
		}
		if looked == 64 || seen == 8 {
			break
		}
	}
	if oldest == nil {
		return false
	}
	delete(r.flows, oldest.flow)
	r.tasks.Go(func() { oldest.end(endCrowded) }) // it takes mu
	return true
}

// answerable says whether a source address can be a client's. An answer to a socket of our own, or to a service that
// answers everything, would come back to us for ever; whoever can forge a source could start that with one datagram.
func (r *udpRelay) answerable(f flow) bool {
	from := f.client.Addr()
	return f.client.Port() != 0 && !answersAll(f.client.Port()) && !from.IsUnspecified() && !from.IsMulticast() &&
		from != broadcast && !r.locals.own(f)
}

// answersAll knows the ports of echo, daytime, qotd, chargen, time, dns and tftp. No client is given one of them: NATs
// keep ports above 1023 there (RFC 4787 §4.2.1).
func answersAll(port uint16) bool {
	switch port {
	case 7, 13, 17, 19, 37, 53, 69:
		return true
	}
	return false
}

// locals are the addresses of all UDP sockets that streams listen on. The zero value is none.
type locals struct {
	mu   sync.Mutex // guards open
	open map[netip.AddrPort]int
}

func (l *locals) add(a netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[netip.AddrPort]int{}
	}
	l.open[a]++
}

func (l *locals) remove(a netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a]--; l.open[a] <= 0 {
		delete(l.open, a)
	}
}

// own reports whether a flow comes from one of them: by its address, or by its port when it listens on all and the
// address is this machine's.
func (l *locals) own(f flow) bool {
	from, port := f.client.Addr(), f.client.Port()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[f.client] > 0 {
		return true
	}
	here := from == f.local || from.IsLoopback()
	return here && l.open[netip.AddrPortFrom(netip.IPv4Unspecified(), port)]+l.open[netip.AddrPortFrom(netip.IPv6Unspecified(), port)] > 0
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// begin makes a session; its server is connected to beside us. The caller holds mu.
func (r *udpRelay) begin(ctx context.Context, p *policy, f flow) *udpSession {
	header, err := proxyHeader(p.proxy, "udp", f.client, netip.AddrPortFrom(f.local, r.local.Port()))
	if err != nil {
		r.Log.Error("stream header", "stream", p.name, "client", f.client, "local", f.local, "err", err)
		p.count.drop(dropSource, 1)
		return nil
	}
	s := &udpSession{relay: r, policy: p, flow: f, header: header, began: time.Now()}
	if r.any && !f.local.IsUnspecified() {
		s.oob = sourceOOB(f.local, r.conn)
	}
	ctx, s.cancel = context.WithCancelCause(ctx)
	r.flows[f] = s
	p.count.start()
	r.tasks.Go(func() { s.run(ctx) })
	return s
}

// forget takes a session off the table.
func (r *udpRelay) forget(s *udpSession) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flows[s.flow] == s {
		delete(r.flows, s.flow)
	}
	r.closeIfDone()
}
