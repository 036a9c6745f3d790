package stream

import (
	"net"

	"golang.org/x/sys/unix"
)

// counterOf reads a socket's counters; nil if the kernel has none.
func counterOf(c *net.TCPConn) byteCounter {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	count := func() (received, acked uint64, err error) {
		var info *unix.TCPInfo
		var sockErr error
		if err := raw.Control(func(fd uintptr) {
			info, sockErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		}); err != nil {
			return 0, 0, err
		}
		if sockErr != nil {
			return 0, 0, sockErr
		}
		return info.Bytes_received, info.Bytes_acked, nil
	}
	if _, _, err := count(); err != nil {
		return nil
	}
	return count
}
