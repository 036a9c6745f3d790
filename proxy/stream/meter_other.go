//go:build !linux

package stream

import "net"

// counterOf is for Linux; elsewhere bytes are counted as they pass, there being no splice either.
func counterOf(*net.TCPConn) byteCounter { return nil }
