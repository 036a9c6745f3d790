package main

import (
	"context"
	"net"
	"sync"
)

// binder makes every socket of a node, so that a failed start can close them all again.
type binder struct {
	mu   sync.Mutex
	open []interface{ Close() error }
}

// listen binds a TCP listener. Multipath TCP is off: TCP_INFO is not there on its sockets.
func (b *binder) listen(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	b.keep(l)
	return l, nil
}

func (b *binder) listenPacket(network, address string) (net.PacketConn, error) {
	var lc net.ListenConfig
	p, err := lc.ListenPacket(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	b.keep(p)
	return p, nil
}

func (b *binder) keep(c interface{ Close() error }) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = append(b.open, c)
}

func (b *binder) closeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.open {
		c.Close()
	}
	b.open = nil
}
