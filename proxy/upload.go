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

	mu      sync.Mutex // guards what is below
	reading bool
	err     error // the first one that is not the end
}

// watchUpload puts the watch on r's body. limit 0 is none.
func (x *exchange) watchUpload(r *http.Request, limit int64) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	body := r.Body
	if limit > 0 {
		body = http.MaxBytesReader(x.w.ResponseWriter, body, limit)
	}
	x.upload = &upload{ReadCloser: body, x: x, rc: x.w.rc, idle: x.p.limits.Body}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		x.upload.idle = 0 // a stream of messages may pause as long as it likes
	}
	r.Body = x.upload
	if r.ProtoMajor == 1 {
		x.w.rc.EnableFullDuplex() // origins may answer before they have read all
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
	u.reading = true
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
	if u.reading {
		u.rc.SetReadDeadline(time.Unix(1, 0))
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
