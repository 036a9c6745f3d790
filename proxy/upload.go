package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// errBodyIdle is what reading a body gives whose client sends nothing.
var errBodyIdle = errors.New("request body idle")

// upload is a request's body: limited in size, and ended when its client is silent too long.
type upload struct {
	io.ReadCloser
	x     *exchange
	rc    *http.ResponseController
	idle  time.Duration // 0: may be silent
	timer *time.Timer

	stream  bool        // of messages: silent only while the answer is, too
	trailer http.Header // complete with the end of the body

	mu      sync.Mutex // guards what is below
	reading bool
	sent    int64 // of the answer, when the wait began
	read    bool  // to its end
	over    bool  // the handler ends
	err     error // the first one that is not the end
}

// distrust gives a body of HTTP/1 a time to arrive in that nobody may ever read: net/http reads it itself then,
// before it answers and after, without a limit of its own. On HTTP/2 it resets the stream.
func (x *exchange) distrust(r *http.Request) {
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
		x.w.rc.SetReadDeadline(x.began.Add(x.p.limits.Body))
	}
}

// watchUpload puts the watch on r's body. limit 0 is none.
func (x *exchange) watchUpload(r *http.Request, limit int64) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	body := r.Body
	if limit > 0 {
		// Without the writer, whose header it would change from the goroutine that reads.
		body = http.MaxBytesReader(nil, body, limit)
	}
	dropClaims(r.Trailer)
	x.upload = &upload{ReadCloser: body, x: x, rc: x.w.rc, idle: x.p.limits.Body, trailer: r.Trailer}
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		x.upload.idle, x.upload.stream = x.site.Upgrade, true
	}
	r.Body = x.upload
	if r.ProtoMajor == 1 {
		x.w.rc.SetReadDeadline(time.Time{}) // the watch has its own
		x.w.rc.EnableFullDuplex()           // origins may answer before they have read all
	}
}

func (u *upload) Read(p []byte) (int, error) {
	u.begin()
	n, err := u.ReadCloser.Read(p)
	return n, u.done(err)
}

func (u *upload) begin() {
	if u.idle <= 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reading, u.sent = true, u.x.w.bytes.Load()
	if u.timer == nil {
		u.timer = time.AfterFunc(u.idle, u.expire)
	} else {
		u.timer.Reset(u.idle)
	}
}

func (u *upload) done(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reading = false
	if u.timer != nil {
		u.timer.Stop()
	}
	if err == io.EOF {
		u.read = true
		dropClaims(u.trailer) // those nobody has announced
	}
	if err == nil || err == io.EOF {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errBodyIdle
	}
	if u.err == nil {
		u.err = err
	}
	return err
}

// expire ends a read under way. The lock keeps it from hitting what net/http reads after the body.
func (u *upload) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.reading || u.over {
		return
	}
	if sent := u.x.w.bytes.Load(); u.stream && sent != u.sent {
		u.sent = sent
		u.timer.Reset(u.idle)
		return
	}
	u.rc.SetReadDeadline(time.Unix(1, 0))
}

// leave ends the watch with the handler, whose connection is not ours to touch any more. What is left of the body
// on HTTP/1, net/http reads: see distrust.
func (u *upload) leave(r *http.Request) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	if u.timer != nil {
		u.timer.Stop()
	}
	if r.ProtoMajor == 1 && !u.read {
		u.rc.SetReadDeadline(time.Now().Add(u.x.p.limits.Body))
	}
}

// failure is what went wrong with the body; nil for nothing.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}
