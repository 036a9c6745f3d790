package origin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// exchange is one request at one server, from its first byte to the end of its response's body.
type exchange struct {
	cancel context.CancelFunc // of the outgoing request's context
	server *server
	via    *http.Transport
	idle   time.Duration
	watch  watch
	upload *uploadReader // nil without a request body
	over   atomic.Bool
}

// newExchange makes one under way at s, and the context for its request, which ends with it.
func newExchange(req *http.Request, s *server, idle time.Duration) (context.Context, *exchange) {
	ctx, cancel := context.WithCancel(req.Context())
	x := &exchange{cancel: cancel, server: s, via: s.roundTripper(req), idle: idle}
	x.watch.idle, x.watch.expire, x.watch.began = idle, cancel, time.Now()
	s.inFlight.Add(1)
	return ctx, x
}

// end gives back what the exchange holds. It may be called again.
func (x *exchange) end() {
	if x.over.CompareAndSwap(false, true) {
		x.watch.stop()
		x.cancel()
		if x.via != x.server.http.Load() && x.via != x.server.upgrades {
			x.via.CloseIdleConnections() // renewed meanwhile
		}
		x.server.release()
	}
}

// send lets the outgoing request have the body, watched.
func (x *exchange) send(out *http.Request, body *upload) {
	x.upload = body.reader(&x.watch)
	out.Body = x.upload
	if body.again != nil { // the transport may send it anew on a connection that went stale
		out.GetBody = func() (io.ReadCloser, error) {
			if !body.next() {
				return nil, errTurnOver
			}
			return body.reader(&x.watch), nil
		}
	}
	x.watch.start()
}

// receive puts the watch on the response's body and ends the exchange with it.
func (x *exchange) receive(resp *http.Response) {
	if resp.Body == nil || resp.Body == http.NoBody {
		x.end()
		return
	}
	if rw, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		x.watch.stop() // how long it may be silent is the caller's to say
		resp.Body = &upgraded{rw, x}
		return
	}
	resp.Body = &download{resp.Body, x}
	x.watch.start()
}

// silence is the error of an exchange that the watch has ended.
func (x *exchange) silence() error {
	return fmt.Errorf("no byte in either direction within timeouts.idle of %v", x.idle)
}

// bodyError is what reading the request's body failed with, nil if it did not.
func (x *exchange) bodyError() error {
	if x.upload != nil {
		if err := x.upload.failure.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// download is a response's body.
type download struct {
	io.ReadCloser
	x *exchange
}

func (d *download) Read(p []byte) (int, error) {
	d.x.watch.wait()
	n, err := d.ReadCloser.Read(p)
	d.x.watch.done()
	if err == nil {
		return n, nil
	}
	if err != io.EOF && d.x.watch.fired.Load() {
		err = &serverError{d.x.server.origin, d.x.server.name, []error{ErrTimeout}, d.x.silence()}
	}
	d.x.end()
	return n, err
}

func (d *download) Close() error {
	err := d.ReadCloser.Close()
	d.x.end()
	return err
}

// upgraded is the connection after 101 (Switching Protocols), in both directions.
type upgraded struct {
	io.ReadWriteCloser
	x *exchange
}

func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	u.x.end()
	return err
}

// CloseWrite ends our direction alone, where the connection can.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}
