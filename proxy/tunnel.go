package proxy

import (
	"io"
	"sync"
	"time"
)

// tunnel is the origin's side of an upgraded connection. It ends when nothing has moved in either direction for
// the time of the site: both directions pass through it.
type tunnel struct {
	io.ReadWriteCloser
	idle  time.Duration
	timer *time.Timer
	once  sync.Once
	err   error
}

func newTunnel(rw io.ReadWriteCloser, idle time.Duration) *tunnel {
	t := &tunnel{ReadWriteCloser: rw, idle: idle}
	if idle > 0 {
		t.timer = time.AfterFunc(time.Hour, func() { t.Close() })
		t.timer.Reset(idle) // not before Close can see the timer
	}
	return t
}

func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	t.moved(n)
	return n, err
}

func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Write(p)
	t.moved(n)
	return n, err
}

func (t *tunnel) moved(n int) {
	if n > 0 && t.timer != nil {
		t.timer.Reset(t.idle)
	}
}

// Close may be called from anywhere, more than once.
func (t *tunnel) Close() error {
	t.once.Do(func() {
		if t.timer != nil {
			t.timer.Stop()
		}
		t.err = t.ReadWriteCloser.Close()
	})
	return t.err
}

// CloseWrite ends the client's direction, where the connection can.
func (t *tunnel) CloseWrite() error {
	if w, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return t.Close()
}
