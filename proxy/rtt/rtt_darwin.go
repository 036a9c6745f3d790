package rtt

import (
	"time"

	"golang.org/x/sys/unix"
)

// read asks for TCP_CONNECTION_INFO, which is in milliseconds and keeps no minimum.
func read(fd uintptr) (Info, error) {
	info, err := unix.GetsockoptTCPConnectionInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_CONNECTION_INFO)
	if err != nil {
		return Info{}, err
	}
	if info.Srtt == 0 {
		return Info{}, ErrNoSample
	}
	smoothed := time.Duration(info.Srtt) * time.Millisecond
	return Info{Min: smoothed, Smoothed: smoothed}, nil
}
