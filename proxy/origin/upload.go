package origin

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

var errTurnOver = errors.New("origin: another attempt has the request body")

// upload is a request's body, which a later attempt may have as long as no earlier one has begun to read it, or
// when the request can make it anew. It is not closed before it is known that no further attempt comes.
type upload struct {
	again func() (io.ReadCloser, error) // http.Request.GetBody; may be nil

	mu    sync.Mutex // guards what is below
	src   io.ReadCloser
	turn  int  // whose it is
	used  bool // a byte has been asked for
	open  bool // the one whose turn it is has not closed it
	final bool // no attempt follows
}

// newUpload is nil for a request without a body.
func newUpload(req *http.Request) *upload {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	return &upload{src: req.Body, again: req.GetBody}
}

// reader gives the body to an attempt.
func (u *upload) reader(w *watch) *uploadReader {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open = true
	r := &uploadReader{upload: u, src: u.src, turn: u.turn, watch: w}
	r.resume()
	return r
}

// next takes the body back for another attempt; false if it cannot be had again.
func (u *upload) next() bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.used {
		if u.again == nil {
			return false
		}
		src, err := u.again()
		if err != nil {
			return false
		}
		u.src, u.used = src, false
	}
	u.turn++
	u.open = false
	return true
}

// finish says that no further attempt comes, and closes the body if no attempt has it.
func (u *upload) finish() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.final = true
	if !u.open {
		u.src.Close()
	}
}

// uploadReader is the body in the hands of one attempt. The server is waited for from one Read to the next:
// while a Read lasts it is the client, whose silence is for the caller to bound.
type uploadReader struct {
	upload *upload
	src    io.ReadCloser
	turn   int
	watch  *watch

	waiting atomic.Bool
	ended   atomic.Bool
	failure atomic.Pointer[error] // of src, except io.EOF
}

func (r *uploadReader) Read(p []byte) (int, error) {
	if !r.begin() {
		return 0, errTurnOver
	}
	r.pause()
	n, err := r.src.Read(p)
	if err != nil {
		r.ended.Store(true)
		if err != io.EOF {
			r.failure.Store(&err)
		}
		return n, err
	}
	r.resume()
	return n, nil
}

func (r *uploadReader) begin() bool {
	r.upload.mu.Lock()
	defer r.upload.mu.Unlock()
	if r.turn != r.upload.turn {
		return r.src != r.upload.src // its own copy it may read on
	}
	r.upload.used = true
	return true
}

// resume begins to wait for the server, unless the upload is over: from there to the head is the first byte's
// time.
func (r *uploadReader) resume() {
	if !r.ended.Load() && r.waiting.CompareAndSwap(false, true) {
		r.watch.wait()
	}
}

func (r *uploadReader) pause() {
	if r.waiting.CompareAndSwap(true, false) {
		r.watch.done()
	}
}

func (r *uploadReader) Close() error {
	r.ended.Store(true)
	r.pause()
	r.upload.mu.Lock()
	defer r.upload.mu.Unlock()
	if r.turn == r.upload.turn {
		r.upload.open = false
		if !r.upload.used && !r.upload.final {
			return nil // the next attempt may want it; finish closes it
		}
	} else if r.src == r.upload.src {
		return nil
	}
	return r.src.Close()
}
