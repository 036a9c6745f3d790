package rtt_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/proxy/rtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is one TCP connection over loopback, the accepted side first.
func pair(t *testing.T) (accepted, dialled net.Conn) {
	t.Helper()
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close(); dialled.Close() })
	return accepted, dialled
}

// wrapped is a connection around another, as the gate and the counters of the edge are.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// circular is a broken wrapper that names itself.
type circular struct{ net.Conn }

func (c circular) NetConn() net.Conn { return c }

func TestOfFindsTheSocketUnderWrappers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads TCP_INFO of a fresh connection, which only Linux fills at once")
	}
	accepted, _ := pair(t)
	for name, c := range map[string]net.Conn{
		"bare":         accepted,
		"wrapped":      wrapped{accepted},
		"wrapped deep": wrapped{wrapped{wrapped{accepted}}},
		"tls":          tls.Server(wrapped{accepted}, &tls.Config{}),
	} {
		info, err := rtt.Of(c)
		if err != nil {
			t.Errorf("%s: Of: %v", name, err)
			continue
		}
		if info.Min <= 0 || info.Min > time.Second || info.Smoothed < info.Min {
			t.Errorf("%s: Of = %+v, want 0 < Min <= Smoothed on loopback", name, info)
		}
	}
}

func TestOfRefusesWhatIsNoTCP(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	for name, c := range map[string]net.Conn{"pipe": a, "nil": nil, "circular": circular{a}} {
		if _, err := rtt.Of(c); !errors.Is(err, rtt.ErrNotTCP) {
			t.Errorf("%s: Of = %v, want ErrNotTCP", name, err)
		}
	}
}

func TestOfClosedConnection(t *testing.T) {
	accepted, _ := pair(t)
	accepted.Close()
	if _, err := rtt.Of(accepted); err == nil {
		t.Error("Of a closed connection gave no error")
	}
}
