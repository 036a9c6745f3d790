package rtt

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// read asks for TCP_INFO. A Multipath TCP socket has no such option at this level, which is why our listeners
// switch it off.
func read(fd uintptr) (Info, error) {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Info{}, err
	}
	// The kernel's minimum starts at its largest value, and stays 0 in kernels before 4.6, which do not fill it.
	if info.Min_rtt == math.MaxUint32 || info.Rtt == 0 {
		return Info{}, ErrNoSample
	}
	got := Info{Min: micros(info.Min_rtt), Smoothed: micros(info.Rtt)}
	if got.Min == 0 {
		got.Min = got.Smoothed
	}
	return got, nil
}

func micros(v uint32) time.Duration { return time.Duration(v) * time.Microsecond }
