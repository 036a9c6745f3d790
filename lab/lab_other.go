//go:build !linux

package lab

import (
	"context"
	"net"
	"os/exec"
	"testing"
	"time"
)

// Lab is a running topology. Here it cannot exist: network namespaces are Linux's.
type Lab struct{}

// New skips the test.
func New(t testing.TB, _ Topology) *Lab {
	t.Helper()
	t.Skip("lab: network namespaces need Linux; this test is skipped here")
	return nil
}

const nowhere = "lab: network namespaces need Linux"

// Command is for Linux only.
func (*Lab) Command(string, string, ...string) *exec.Cmd { panic(nowhere) }

// SetRTT is for Linux only.
func (*Lab) SetRTT(string, string, time.Duration) { panic(nowhere) }

// SetLoss is for Linux only.
func (*Lab) SetLoss(string, string, float64) { panic(nowhere) }

// Cut is for Linux only.
func (*Lab) Cut(string) { panic(nowhere) }

// Join is for Linux only.
func (*Lab) Join(string) { panic(nowhere) }

// Listen is for Linux only.
func (*Lab) Listen(string, string, string) (net.Listener, error) { panic(nowhere) }

// ListenPacket is for Linux only.
func (*Lab) ListenPacket(string, string, string) (net.PacketConn, error) { panic(nowhere) }

// Dial is for Linux only.
func (*Lab) Dial(context.Context, string, net.Dialer, string, string) (net.Conn, error) {
	panic(nowhere)
}
