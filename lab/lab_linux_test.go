package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/nearzone/nearzone/lab"
)

// TestMain is also the program that tests run inside hosts.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "ping" {
		if err := ping(os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "hang" {
		fmt.Println(os.Getpid())
		select {}
	}
	goleak.VerifyTestMain(m)
}

// ping prints the smallest of forty round trips of ICMP echo.
func ping(address string) error {
	c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer c.Close()
	best := time.Hour
	for seq := range 40 {
		message, _ := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq}}).Marshal(nil)
		start := time.Now()
		if _, err := c.WriteTo(message, &net.IPAddr{IP: net.ParseIP(address)}); err != nil {
			return err
		}
		c.SetReadDeadline(start.Add(2 * time.Second))
		buf := make([]byte, 1500)
		if _, _, err := c.ReadFrom(buf); err != nil {
			return err
		}
		best = min(best, time.Since(start))
	}
	fmt.Println(best)
	return nil
}

const asked = 12 * time.Millisecond

// within reports whether a measured time is the asked one and at most two milliseconds of our own.
func within(d, asked time.Duration) bool { return d >= asked && d <= asked+2*time.Millisecond }

func zone(t *testing.T) *lab.Lab {
	return lab.New(t, lab.Topology{
		Hosts: map[string][]string{
			"lax":    {"203.0.113.10", "2001:db8:a::10"},
			"viewer": {"198.51.100.0/24", "2001:db8:b::/64"},
		},
		RTT: map[[2]string]time.Duration{{"lax", "viewer"}: asked},
	})
}

// echo answers what it gets on every connection.
func echo(t *testing.T, l *lab.Lab, host, address string) {
	t.Helper()
	listener, err := l.Listen(host, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
}

// dial connects from the viewer's network and says how long it took.
func dial(l *lab.Lab, address string) (net.Conn, time.Duration, error) {
	start := time.Now()
	c, err := l.Dial(context.Background(), "viewer", net.Dialer{Timeout: 500 * time.Millisecond}, "tcp", address)
	return c, time.Since(start), err
}

// quickest is the smallest of up to forty connects: a busy machine adds to most of them, nothing takes away.
func quickest(t *testing.T, l *lab.Lab, address string, asked time.Duration) time.Duration {
	t.Helper()
	best := time.Hour
	for i := 0; i < 40 && !within(best, asked); i++ {
		c, took, err := dial(l, address)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		best = min(best, took)
	}
	return best
}

func TestConnectTakesTheRoundTripAskedFor(t *testing.T) {
	l := zone(t)
	for _, address := range []string{"203.0.113.10:80", "[2001:db8:a::10]:80"} {
		echo(t, l, "lax", address)
		if d := quickest(t, l, address, asked); !within(d, asked) {
			t.Errorf("%s: connect took %v, asked for %v", address, d, asked)
		}
	}
	l.SetRTT("viewer", "lax", 40*time.Millisecond)
	if d := quickest(t, l, "203.0.113.10:80", 40*time.Millisecond); !within(d, 40*time.Millisecond) {
		t.Errorf("connect took %v after SetRTT(40ms)", d)
	}
}

func TestKernelSeesTheRoundTrip(t *testing.T) {
	l := zone(t)
	echo(t, l, "lax", "203.0.113.10:80")
	c, _, err := dial(l, "203.0.113.10:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 40 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Duration(info.Min_rtt) * time.Microsecond; !within(d, asked) {
		t.Errorf("TCP_INFO says %v, asked for %v", d, asked)
	}
}

func TestPingFromInside(t *testing.T) {
	l := zone(t)
	out, err := l.Command("viewer", os.Args[0], "ping", "203.0.113.10").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if d, err := time.ParseDuration(strings.TrimSpace(string(out))); err != nil || !within(d, asked) {
		t.Errorf("ping took %s, asked for %v", out, asked)
	}
}

func TestClientNetworkHasAllItsAddresses(t *testing.T) {
	l := zone(t)
	echo(t, l, "lax", "203.0.113.10:80")
	d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(198, 51, 100, 77)}}
	c, err := l.Dial(context.Background(), "viewer", d, "tcp", "203.0.113.10:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestCutAndJoin(t *testing.T) {
	l := zone(t)
	echo(t, l, "lax", "203.0.113.10:80")
	l.Cut("lax")
	if c, _, err := dial(l, "203.0.113.10:80"); err == nil {
		c.Close()
		t.Error("connected to a host that is cut off")
	}
	l.Join("lax")
	c, _, err := dial(l, "203.0.113.10:80")
	if err != nil {
		t.Fatalf("not joined: %v", err)
	}
	c.Close()
}

func TestLossLosesItsShare(t *testing.T) {
	l := zone(t)
	l.SetRTT("lax", "viewer", 0)
	l.SetLoss("lax", "viewer", 0.3)
	in, err := l.ListenPacket("lax", "udp", "203.0.113.10:5000")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := l.Dial(context.Background(), "viewer", net.Dialer{}, "udp", "203.0.113.10:5000")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	const sent = 2000
	got := make(chan int)
	go func() { got <- count(in) }()
	for i := range sent {
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			<-time.After(time.Millisecond) // stays below what the sockets hold
		}
	}
	if n := <-got; n < sent*65/100 || n > sent*75/100 {
		t.Errorf("%d of %d arrived, want about 70 %%", n, sent)
	}
}

// count reads datagrams until none comes for half a second.
func count(c net.PacketConn) (n int) {
	for {
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, _, err := c.ReadFrom(make([]byte, 64)); err != nil {
			return n
		}
		n++
	}
}

func TestLabsDoNotCollide(t *testing.T) {
	one, two := zone(t), zone(t)
	echo(t, one, "lax", "203.0.113.10:80")
	if c, _, err := dial(two, "203.0.113.10:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("the second lab reaches into the first: %v", err)
	}
}

func TestLabLeavesNothingBehind(t *testing.T) {
	var cmd *exec.Cmd
	t.Run("lab", func(t *testing.T) {
		l := zone(t)
		cmd = l.Command("lax", os.Args[0], "hang")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscan(bufio.NewReader(out), &pid); err != nil {
			t.Fatal(err)
		}
		if pid != cmd.Process.Pid {
			t.Errorf("the program is process %d, the command %d", pid, cmd.Process.Pid)
		}
	})
	if cmd == nil {
		t.Skip("no lab")
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the program ended with %v, want it killed with its lab", err)
	}
	for _, name := range namespaces(t) {
		if strings.HasPrefix(name, fmt.Sprintf("nzlab%d-", os.Getpid())) {
			t.Errorf("namespace %s is still there", name)
		}
	}
}

func TestSweepRemovesWhatADeadProcessLeft(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	l := zone(t) // for its skip
	name := fmt.Sprintf("nzlab%d-1-lax", dead.Process.Pid)
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	zone(t)
	if slices.Contains(namespaces(t), name) {
		t.Errorf("%s is still there", name)
	}
	if err := l.Command("lax", "true").Run(); err != nil {
		t.Errorf("a living lab was swept: %v", err)
	}
}

// namespaces of labs, those of other processes included.
func namespaces(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "nzlab") {
			names = append(names, e.Name())
		}
	}
	return names
}
