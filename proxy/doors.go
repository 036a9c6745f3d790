package proxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nearzone/nearzone/config"
)

// doorKey tells listeners apart: one that changes its address or its protocol is another.
type doorKey struct {
	address string
	secure  bool
}

// door is one listener.
type door struct {
	doorKey
	ln     net.Listener
	closed chan struct{}
	once   sync.Once
}

func (d *door) close() {
	d.once.Do(func() {
		close(d.closed)
		d.ln.Close()
	})
}

// bind opens what cfg listens on, keeping those of open that it still wants. On an error nothing has changed.
func (p *Proxy) bind(cfg *config.Config, open map[doorKey]*door) (map[doorKey]*door, error) {
	doors := map[doorKey]*door{}
	for _, want := range []struct {
		doorKey
		name string
	}{{doorKey{cfg.Listen.HTTP, false}, "listen.http"}, {doorKey{cfg.Listen.HTTPS, true}, "listen.https"}} {
		if want.address == "" {
			continue
		}
		if d, ok := open[want.doorKey]; ok {
			doors[want.doorKey] = d
			continue
		}
		ln, err := p.deps.Listen("tcp", want.address)
		if err != nil {
			closeUnless(doors, open)
			return nil, fmt.Errorf("%s %q: %w", want.name, want.address, err)
		}
		doors[want.doorKey] = &door{doorKey: want.doorKey, ln: ln, closed: make(chan struct{})}
	}
	return doors, nil
}

// closeUnless closes the doors that are not in keep.
func closeUnless(doors, keep map[doorKey]*door) {
	for key, d := range doors {
		if keep[key] != d {
			d.close()
		}
	}
}

// Addrs lists the addresses that are listened on: of listen.http and of listen.https, nil where there is none.
func (p *Proxy) Addrs() (http, https net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.doors {
		if d.secure {
			https = d.ln.Addr()
		} else {
			http = d.ln.Addr()
		}
	}
	return http, https
}

// swapDoors takes the doors of a new configuration into use and closes those it does not have.
func (p *Proxy) swapDoors(doors map[doorKey]*door) {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeUnless(p.doors, doors)
	p.pending = nil
	if p.serving {
		for key, d := range doors {
			if p.doors[key] != d {
				p.doorsWG.Go(func() { p.acceptAt(d) })
			}
		}
	}
	p.doors = doors
}

// openDoors starts accepting.
func (p *Proxy) openDoors() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = true
	for _, d := range p.doors {
		p.doorsWG.Go(func() { p.acceptAt(d) })
	}
}

func (p *Proxy) closeDoors() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = false
	closeUnless(p.doors, nil)
	closeUnless(p.pending, p.doors)
	p.doors, p.pending = nil, nil
}

// acceptAt accepts until the door is closed. Errors of the moment, as no descriptor left, only slow it down.
func (p *Proxy) acceptAt(d *door) {
	const first, most = 5 * time.Millisecond, time.Second
	wait := first
	for {
		c, err := d.ln.Accept()
		switch {
		case err == nil:
			wait = first
			p.admit(d, c)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			p.metrics.refusedConns[connAccept].Inc()
			p.log.Warn("accept", "address", d.address, "err", err)
			select {
			case <-time.After(wait):
				wait = min(2*wait, most)
			case <-d.closed:
				return
			}
		}
	}
}

// feed is the listener that net/http sees: connections that are ready for it.
type feed struct {
	conns chan net.Conn
	done  chan struct{}
}

func newFeed() *feed { return &feed{make(chan net.Conn), make(chan struct{})} }

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close is called once, by net/http.
func (f *feed) Close() error {
	close(f.done)
	return nil
}

func (f *feed) Addr() net.Addr { return &net.TCPAddr{} }

// give hands a connection to net/http, or closes it when that has ended.
func (f *feed) give(c net.Conn) {
	select {
	case f.conns <- c:
	case <-f.done:
		c.Close()
	}
}
