package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// admit takes an accepted connection in, or closes it when there are too many.
func (p *Proxy) admit(d *door, raw net.Conn) {
	if p.conns.len() >= p.limits.Conns {
		p.metrics.refusedConns[connTooMany].Inc()
		raw.Close()
		return
	}
	c := p.newConn(raw, d.secure)
	if p.finished.Load() { // after newConn: what finish does not see, sees finish
		c.Close()
		return
	}
	if c.direct && !d.secure {
		p.feed.give(p.gate.Conn(c))
		return
	}
	p.doorsWG.Go(func() { p.greet(c) })
}

// greet reads what comes before HTTP: a PROXY header where one must come, and the TLS handshake.
func (p *Proxy) greet(c *conn) {
	if !c.direct && !c.readProxyHeader() {
		p.metrics.refusedConns[connProxyHeader].Inc()
		p.log.Debug("no PROXY header from a peer that must send one", "peer", c.peer)
		c.Close()
		return
	}
	if !c.secure {
		p.feed.give(p.gate.Conn(c))
		return
	}
	if ready := p.handshake(c); ready != nil {
		p.feed.give(ready)
	}
}

// handshake makes the TLS connection that net/http gets: as it is for HTTP/2, behind the gate for HTTP/1. It is
// nil when there is nothing to serve.
func (p *Proxy) handshake(c *conn) net.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), p.limits.Handshake)
	defer cancel()
	secure := tls.Server(c, p.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		p.metrics.refusedConns[connTLS].Inc()
		p.log.Debug("TLS handshake", "client", c.client, "err", err)
		answerClearText(err)
		c.Close()
		return nil
	}
	switch secure.ConnectionState().NegotiatedProtocol {
	case "h2":
		return secure
	case "", "http/1.1":
		return p.gate.Conn(secure)
	}
	secure.Close() // acme-tls/1: the handshake was all it wanted (RFC 8737)
	return nil
}

// answerClearText tells a client that speaks HTTP to the TLS port.
func answerClearText(err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		const answer = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nthis port speaks HTTPS\n"
		record.Conn.Write([]byte(answer))
	}
}

// readProxyHeader reads the PROXY protocol header, version 1 or 2, and takes the client's address from it.
func (c *conn) readProxyHeader() bool {
	pc, ok := c.Conn.(*proxyproto.Conn)
	if !ok {
		return false
	}
	h := pc.ProxyHeader() // within the time limit it was made with
	if h == nil {
		return false
	}
	if src, _, ok := h.TCPAddrs(); ok && h.Command.IsProxy() {
		c.client = addrOf(src)
	}
	return c.client.IsValid()
}

// addrOf is the plain address in a; invalid if there is none.
func addrOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp == nil {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
