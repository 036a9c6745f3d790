//go:build unix

package proxy

import "syscall"

func halfOfDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return fewConns
	}
	return max(int(limit.Cur)/2, 64)
}
