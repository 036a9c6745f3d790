package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Lab is a running topology. It ends with its test. The methods may be called from any goroutine; those that name a
// host fail the test if there is none of that name.
type Lab struct {
	t      testing.TB
	spaces map[string]*space // by host
	wire   *wire
	done   chan struct{}
	tasks  sync.WaitGroup
}

// labs numbers the labs of this process, so that those of parallel tests do not share namespaces.
var labs atomic.Uint64

// New builds a topology and starts carrying packets. It skips the test where it cannot work.
func New(t testing.TB, top Topology) *Lab {
	t.Helper()
	if why := cannot(); why != "" {
		t.Skipf("lab: %s; this test is skipped here", why)
	}
	p, err := top.plan()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	sweep()
	l := &Lab{t: t, spaces: map[string]*space{}, wire: newWire(p), done: make(chan struct{})}
	t.Cleanup(l.close)
	number := labs.Add(1)
	for _, host := range p.names {
		s, err := newSpace(fmt.Sprintf("%s%d-%d-%s", namePrefix, os.Getpid(), number, host))
		if s != nil {
			l.spaces[host] = s
		}
		if err != nil {
			t.Fatalf("lab: host %s: %v", host, err)
		}
	}
	for _, o := range p.owner {
		if err := l.spaces[o.host].own(o.prefix); err != nil {
			t.Fatalf("lab: host %s: %v", o.host, err)
		}
	}
	l.start()
	return l
}

// cannot says why there can be no lab here.
func cannot() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "the ip command (iproute2) is not installed"
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return "there is no /dev/net/tun"
	}
	return ""
}

func (l *Lab) start() {
	for host, s := range l.spaces {
		l.wire.out[host] = s.write
		l.tasks.Go(func() { s.read(func(packet []byte) { l.wire.send(host, packet, time.Now()) }) })
	}
	l.tasks.Go(func() { l.wire.run(l.done) })
}

// close kills what still runs in the namespaces and takes all down.
func (l *Lab) close() {
	close(l.done)
	for _, s := range l.spaces {
		s.close()
	}
	l.tasks.Wait()
}

func (l *Lab) space(host string) *space {
	l.t.Helper()
	s := l.spaces[host]
	if s == nil {
		l.t.Fatalf("lab: no host %q", host)
	}
	return s
}

// Command makes a command that runs inside a host. Its process is the program itself, so a signal reaches it. What
// still runs when the test ends is killed.
func (l *Lab) Command(host, name string, args ...string) *exec.Cmd {
	l.t.Helper()
	return exec.Command("ip", append([]string{"netns", "exec", l.space(host).name, name}, args...)...)
}

// SetRTT changes the round trip between two hosts, for packets sent from now on.
func (l *Lab) SetRTT(a, b string, rtt time.Duration) {
	l.space(a)
	l.space(b)
	l.wire.setPath(a, b, func(p *path) { p.rtt = rtt })
}

// SetLoss changes the share of packets that are lost between two hosts, in each direction.
func (l *Lab) SetLoss(a, b string, share float64) {
	l.space(a)
	l.space(b)
	l.wire.setPath(a, b, func(p *path) { p.loss = share })
}

// Cut loses every packet from and to a host, those under way included.
func (l *Lab) Cut(host string) { l.space(host); l.wire.setCut(host, true) }

// Join undoes Cut.
func (l *Lab) Join(host string) { l.space(host); l.wire.setCut(host, false) }

// Listen listens inside a host for the calling process.
func (l *Lab) Listen(host, network, address string) (net.Listener, error) {
	var listener net.Listener
	err := l.space(host).do(func() (err error) {
		var c net.ListenConfig
		c.SetMultipathTCP(false)
		listener, err = c.Listen(context.Background(), network, address)
		return err
	})
	return listener, err
}

// ListenPacket opens a packet socket inside a host for the calling process.
func (l *Lab) ListenPacket(host, network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := l.space(host).do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

// Dial connects from inside a host for the calling process, as d says. The address must be literal: a name would be
// looked up outside.
func (l *Lab) Dial(ctx context.Context, host string, d net.Dialer, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("lab: dial: %w", err)
	}
	d.SetMultipathTCP(false)
	var conn net.Conn
	err := l.space(host).do(func() (err error) {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// do runs fn on a thread inside the namespace. Sockets made by fn itself, not by goroutines it starts, stay there.
func (s *space) do(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine, no other one may run in the namespace
		result <- func() error {
			f, err := os.Open("/run/netns/" + s.name)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter namespace %s: %w", s.name, err)
			}
			return fn()
		}()
	}()
	return <-result
}

// ip runs the ip command; its words are one string.
func ip(words string) error {
	out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", words, err, strings.TrimSpace(string(out)))
	}
	return nil
}
