package proxy

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// writer is the way to the client: it counts, adds what every answer carries, and on HTTP/2, where a stream can
// stall for itself, watches for that.
type writer struct {
	http.ResponseWriter
	x      *exchange
	rc     *http.ResponseController
	status int // 0 before the head
	bytes  atomic.Int64
	stall  *time.Timer // HTTP/2 only
	old    bool        // HTTP/1.0, which knows no 1xx (RFC 9110 §15.2)
	empty  bool        // the answer ends with its head: no flush may tear them apart
	cached bool        // the cache answers
	muted  bool        // its answer has been replaced, what else it says is not heard
	held   bool        // something has been written and not flushed

	mu   sync.Mutex // guards over
	over bool       // the handler ends: net/http takes its writer back
}

func newWriter(x *exchange, w http.ResponseWriter, r *http.Request) *writer {
	out := &writer{ResponseWriter: w, x: x, rc: http.NewResponseController(w), old: !r.ProtoAtLeast(1, 1)}
	if r.ProtoMajor == 2 {
		out.stall = time.AfterFunc(x.p.limits.Stall, out.cut)
		out.stall.Stop()
	}
	return out
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) begun() bool { return w.status != 0 }

// cut ends a stream whose client takes nothing.
func (w *writer) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.x.p.metrics.stalled.Inc()
	w.rc.SetWriteDeadline(time.Unix(1, 0))
}

// finish lets no timer outlive the handler. What is still in net/http's buffer, it sends after the handler; a client
// without a window for that may keep it waiting no longer than for the rest.
func (w *writer) finish() {
	if w.stall == nil {
		return
	}
	w.stall.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.held {
		w.rc.SetWriteDeadline(time.Now().Add(w.x.p.limits.Stall))
	}
}

func (w *writer) WriteHeader(status int) {
	if status < 200 && w.old {
		return
	}
	var page []byte
	if status >= 200 && w.status == 0 {
		h := w.Header()
		if w.cached {
			status, page = w.x.instead(h, status)
		}
		w.status = status
		h["X-Request-Id"] = []string{w.x.id}
		if _, said := h["Content-Type"]; !said {
			h["Content-Type"] = nil // else net/http guesses one from the body
		}
		if w.x.p.draining.Load() || w.stall == nil && w.x.upload.failure() != nil {
			// Draining: on HTTP/2, net/http makes it GOAWAY. Or a body was not taken to its end: net/http closes
			// the connection after the answer, and a client that is not told sends its next request into that.
			h["Connection"] = []string{"close"}
		}
	}
	w.ResponseWriter.WriteHeader(status)
	if page != nil {
		w.Write(page)
		w.muted = true
	}
}

func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.muted {
		return len(b), nil
	}
	if w.stall != nil {
		w.stall.Reset(w.x.p.limits.Stall)
		defer w.stall.Stop()
	}
	w.held = true
	n, err := w.ResponseWriter.Write(b)
	w.bytes.Add(int64(n))
	return n, err
}

// FlushError is Flush for http.ResponseController.
func (w *writer) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.empty {
		return nil
	}
	if w.stall != nil {
		w.stall.Reset(w.x.p.limits.Stall)
		defer w.stall.Stop()
	}
	w.held = false
	return w.rc.Flush()
}

func (w *writer) Flush() { w.FlushError() }

// Hijack is the beginning of an upgraded connection.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, brw, err := w.rc.Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return c, brw, err
}

// bufferPool is for httputil.ReverseProxy.
type bufferPool struct{ pool sync.Pool }

const copyBuffer = 32 << 10

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, copyBuffer)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put(&p) }
