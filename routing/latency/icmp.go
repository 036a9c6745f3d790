package latency

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	echoes   = 3                      // a probe; the fastest counts
	echoGap  = 500 * time.Millisecond // between them, so that one queue does not hold up all
	echoWait = 2 * time.Second        // for the last one
)

const (
	protoICMP   = 1
	protoICMPv6 = 58
)

var errSilent = errors.New("no echo reply")

// pinger sends echo requests of one address family through one socket.
type pinger struct {
	conn  *icmp.PacketConn
	raw   bool
	v6    bool
	id    int
	nonce [8]byte // of this process: a reply that does not repeat it is not to us, or is made up

	mu      sync.Mutex // guards what follows
	seq     uint16
	waiting map[uint16]waiter
}

type waiter struct {
	addr netip.Addr
	sent time.Time
	got  chan time.Duration // one place, so that the reader never waits
}

// newPinger opens a socket: an unprivileged one where the system allows it (on Linux, net.ipv4.ping_group_range),
// else a raw one.
func newPinger(v6 bool) (*pinger, error) {
	networks, address := [2]string{"udp4", "ip4:icmp"}, "0.0.0.0"
	if v6 {
		networks, address = [2]string{"udp6", "ip6:ipv6-icmp"}, "::"
	}
	conn, err := icmp.ListenPacket(networks[0], address)
	raw := err != nil
	if raw {
		var rawErr error
		if conn, rawErr = icmp.ListenPacket(networks[1], address); rawErr != nil {
			return nil, fmt.Errorf("open socket for echo requests: %w", errors.Join(err, rawErr))
		}
	}
	p := &pinger{conn: conn, raw: raw, v6: v6, id: os.Getpid() & 0xffff, waiting: map[uint16]waiter{}}
	rand.Read(p.nonce[:]) // never returns an error
	return p, nil
}

// ping is the fastest of a few round trips to addr, and how many came back.
func (p *pinger) ping(ctx context.Context, addr netip.Addr) (best time.Duration, n int, err error) {
	got := make(chan time.Duration, echoes)
	for range echoes {
		seq, err := p.send(addr, got)
		if err != nil {
			return 0, 0, fmt.Errorf("send echo request to %v: %w", addr, err)
		}
		defer p.forget(seq)
		if err := pause(ctx, echoGap); err != nil {
			return 0, 0, err
		}
	}
	timeout := time.NewTimer(echoWait)
	defer timeout.Stop()
	for n < echoes {
		select {
		case rtt := <-got:
			if n++; n == 1 || rtt < best {
				best = rtt
			}
		case <-timeout.C:
			if n == 0 {
				err = errSilent
			}
			return best, n, err
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	return best, n, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pinger) send(addr netip.Addr, got chan time.Duration) (uint16, error) {
	p.mu.Lock()
	p.seq++
	seq := p.seq
	p.waiting[seq] = waiter{addr: addr, sent: time.Now(), got: got}
	p.mu.Unlock()
	b, err := p.request(seq)
	if err == nil {
		_, err = p.conn.WriteTo(b, p.to(addr))
	}
	if err != nil {
		p.forget(seq)
	}
	return seq, err
}

func (p *pinger) forget(seq uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, seq)
}

func (p *pinger) request(seq uint16) ([]byte, error) {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: p.id, Seq: int(seq), Data: p.nonce[:]}}
	if p.v6 {
		m.Type = ipv6.ICMPTypeEchoRequest // the kernel fills in the checksum
	}
	return m.Marshal(nil)
}

func (p *pinger) to(addr netip.Addr) net.Addr {
	if p.raw {
		return &net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}
	}
	return &net.UDPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}
}

// run reads replies until ctx ends, and closes the socket.
func (p *pinger) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	defer stop()
	buf := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFrom(buf)
		now := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("read echo replies: %w", err)
		}
		if err != nil {
			// A socket of this kind is told of other people's trouble, such as an unreachable host.
			if pause(ctx, 10*time.Millisecond) != nil {
				return nil
			}
			continue
		}
		if seq, ok := p.reply(buf[:n]); ok {
			p.deliver(seq, addrOf(from), now)
		}
	}
}

// reply is the sequence number of an echo reply to us.
func (p *pinger) reply(b []byte) (uint16, bool) {
	proto := protoICMP
	if p.v6 {
		proto = protoICMPv6
	}
	m, err := icmp.ParseMessage(proto, b)
	if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
		return 0, false
	}
	// The nonce and not the ID tells whose reply it is: an unprivileged socket has an ID of the kernel's choice.
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || !bytes.Equal(echo.Data, p.nonce[:]) {
		return 0, false
	}
	return uint16(echo.Seq), true
}

func (p *pinger) deliver(seq uint16, from netip.Addr, now time.Time) {
	p.mu.Lock()
	w, ok := p.waiting[seq]
	if ok = ok && w.addr == from; ok {
		delete(p.waiting, seq)
	}
	p.mu.Unlock()
	if ok {
		w.got <- now.Sub(w.sent) // there is a place for each request sent
	}
}

func addrOf(a net.Addr) netip.Addr {
	var ip net.IP
	switch a := a.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
