package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// namePrefix begins the names of our namespaces; the process id follows, so that what a killed test has left behind
// can be told from what others use.
const namePrefix = "nzlab"

// device is the name of the interface in each namespace.
const device = "wan0"

// space is the network namespace of one host, with a TUN device that leads to the wire.
type space struct {
	name string
	tun  *os.File
}

// newSpace makes a namespace. It returns it even with an error, to be closed, once it exists.
func newSpace(name string) (*space, error) {
	if err := ip("netns add " + name); err != nil {
		return nil, err
	}
	s := &space{name: name}
	if err := s.do(s.openTUN); err != nil {
		return s, err
	}
	for _, words := range []string{
		"link set lo up",
		"link set " + device + " up mtu 1500",
		"route add default dev " + device,
	} {
		if err := ip("-n " + name + " " + words); err != nil {
			return s, err
		}
	}
	if hasIPv6() {
		return s, ip("-n " + name + " -6 route add default dev " + device)
	}
	return s, nil
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// openTUN makes the device in the namespace of the calling thread. The descriptor serves outside of it, too; it is
// non-blocking, so that closing it ends a Read.
func (s *space) openTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(device)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("make tun device: %w", err)
	}
	s.tun = os.NewFile(uintptr(fd), s.name) // after TUNSETIFF: epoll takes no device that is not there yet
	return nil
}

// own gives the host an address, or all of a prefix.
func (s *space) own(prefix netip.Prefix) error {
	if prefix.IsSingleIP() {
		nodad := ""
		if prefix.Addr().Is6() {
			nodad = " nodad"
		}
		return ip(fmt.Sprintf("-n %s addr add %s dev %s%s", s.name, prefix, device, nodad))
	}
	if err := ip(fmt.Sprintf("-n %s route add local %s dev lo", s.name, prefix)); err != nil {
		return err
	}
	// Packets need a source when the program binds none: the prefix's first address.
	first := prefix.Addr().Next()
	return s.own(netip.PrefixFrom(first, first.BitLen()))
}

func (s *space) read(got func([]byte)) {
	buf := make([]byte, 1<<16)
	for {
		n, err := s.tun.Read(buf)
		if err == nil {
			got(buf[:n])
		} else if errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// write drops what the host does not take, as a network card does.
func (s *space) write(packet []byte) { _, _ = s.tun.Write(packet) }

// close is as thorough after half a construction as after a whole one.
func (s *space) close() {
	if s.tun != nil {
		s.tun.Close()
	}
	remove(s.name)
}

// remove kills the processes of a namespace, which are all started by a lab, and deletes it.
func remove(name string) {
	out, _ := exec.Command("ip", "netns", "pids", name).Output()
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = ip("netns delete " + name)
}

// sweep removes the namespaces of labs whose process is gone: killed, or ended by a test's time limit, it could not.
func sweep() {
	entries, _ := os.ReadDir("/run/netns")
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), namePrefix)
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if ours && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			remove(e.Name())
		}
	}
}
