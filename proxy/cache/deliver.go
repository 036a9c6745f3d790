package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

// delivery is an object on its way to one client.
type delivery struct {
	object *store.Object
	header http.Header   // as it came from the origin; nil: the object's, with its Age
	reader *store.Reader // begun already; nil: to be begun
	status cacheStatus
}

// hit answers with a stored response as it is.
func (x *exchange) hit(f found) {
	x.out.Status, x.out.Reason = statusHit, f.why
	if f.why != Fresh {
		x.out.Status = statusStale
	}
	s := cacheStatus{hit: true, ttl: ttl(f.object, x.c.now()), hasTTL: true, detail: f.why}
	if !x.deliver(delivery{object: f.object, status: s}) {
		panic("cache: a stored body is gone") // only unstored ones go, and those are never stored
	}
}

// standIn answers with a stale response because the origin failed.
func (x *exchange) standIn(f *fill, stale *store.Object) {
	x.out.Status, x.out.Reason = statusStale, StaleIfError
	s := cacheStatus{fwd: x.why.forward(), fwdStatus: f.result.code, ttl: ttl(stale, x.c.now()), hasTTL: true, detail: StaleIfError}
	x.deliver(delivery{object: stale, status: s})
}

// deliverFetched answers with the object a fill brought; false: its beginning is gone, fetch it alone.
func (x *exchange) deliverFetched(f *fill, as role) bool {
	res := &f.result
	d := delivery{object: res.object, status: x.fetchedStatus(res, as)}
	if as == leads && !res.validated {
		d.header, d.reader = res.first, res.reader
	}
	if !x.deliver(d) {
		x.out = Outcome{}
		x.alone = true
		return false
	}
	return true
}

// fetchedStatus tells what became of a request that a fill answers.
func (x *exchange) fetchedStatus(res *result, as role) cacheStatus {
	left := ttl(res.object, x.c.now())
	x.out.Stored, x.out.Collapsed = res.stored, as == waits
	x.out.Status, x.out.Reason = statusMiss, x.why
	s := cacheStatus{fwd: x.why.forward(), stored: res.stored, collapsed: as == waits}
	switch {
	case as == reads:
		x.out.Status, x.out.Reason = statusHit, Fresh
		s = cacheStatus{hit: true, ttl: left, hasTTL: true}
	case res.validated:
		x.out.Status = statusRevalidated
		s.fwdStatus, s.ttl, s.hasTTL = http.StatusNotModified, left, true
	}
	if !res.stored {
		x.out.Reason = res.why
	}
	s.detail = x.out.Reason
	return s
}

// deliver writes the answer: 304, 206, 416 or the whole. It reports false, with nothing written, when the
// object's bytes are no longer there from the beginning.
func (x *exchange) deliver(d delivery) bool {
	o := d.object
	header, code := d.header, o.Status
	if header == nil {
		header = o.Header
	}
	size := o.Body.Length()
	piece, verdict := span{0, size}, whole
	switch {
	case notModified(x.view.Header, o.Status, header):
		code = http.StatusNotModified
	case x.view.Method == http.MethodGet && o.Status == http.StatusOK && size >= 0:
		var p span
		if p, verdict = ranged(x.view.Header, header, size); verdict == part {
			piece, code = p, http.StatusPartialContent
		} else if verdict == unsatisfiable {
			code = http.StatusRequestedRangeNotSatisfiable
		}
	}
	reader := d.reader
	if x.view.Method == http.MethodGet && code != http.StatusNotModified && verdict != unsatisfiable {
		var err error
		if reader, err = x.read(d, piece); err != nil {
			return false
		}
		defer reader.Close()
	}
	x.copyHeader(header, d, code)
	h := x.w.Header()
	switch {
	case code == http.StatusNotModified:
		x.send(code)
		return true
	case verdict == unsatisfiable:
		h["Content-Range"] = []string{"bytes */" + strconv.FormatInt(size, 10)}
		delete(h, "Content-Type")
		h["Content-Length"] = []string{"0"}
		x.send(code)
		return true
	case verdict == part:
		h["Content-Range"] = []string{piece.contentRange(size)}
	}
	x.setLength(o, piece.length)
	x.send(code)
	if x.view.Method != http.MethodHead {
		x.stream(reader, o.Body)
	}
	return true
}

// read begins to read the piece, with the reader there is or a new one.
func (x *exchange) read(d delivery, piece span) (*store.Reader, error) {
	if d.reader == nil {
		return d.object.Body.Reader(piece.start, piece.length)
	}
	if piece.start > 0 || piece.length >= 0 {
		d.reader.Only(piece.start, piece.length)
	}
	return d.reader, nil
}

// copyHeader fills in the client's header: what is stored, how old it is, and what we did.
func (x *exchange) copyHeader(from http.Header, d delivery, code int) {
	h := x.w.Header()
	for name, lines := range from {
		if code == http.StatusNotModified && bare(name) {
			continue
		}
		h[name] = lines
	}
	if d.header == nil {
		h["Age"] = []string{strconv.FormatInt(min(seconds(age(d.object, x.c.now())), maxDelta), 10)}
	}
	if code == http.StatusOK && d.object.Body.Length() >= 0 && len(h["Accept-Ranges"]) == 0 {
		h["Accept-Ranges"] = acceptRanges
	}
	x.addStatus(d.status)
}

var acceptRanges = []string{"bytes"} // never written to

// addStatus appends our member of Cache-Status behind those of caches nearer the origin.
func (x *exchange) addStatus(s cacheStatus) {
	var room [128]byte
	h := x.w.Header()
	h["Cache-Status"] = append(slices.Clip(h["Cache-Status"]), string(s.append(room[:0], x.c.name)))
}

// setLength tells the length if it is known, and if no trailer must follow, which HTTP/1 can only send behind
// chunks.
func (x *exchange) setLength(o *store.Object, length int64) {
	h := x.w.Header()
	switch {
	case o.Status == http.StatusNoContent:
		delete(h, "Content-Length") // RFC 9110 §8.6
	case length < 0 || o.Body.Sealed() && len(o.Body.Trailer()) > 0:
		delete(h, "Content-Length")
	case length == o.Body.Length() && len(h["Content-Length"]) == 1:
		// the origin's, or it would have been refused
	default:
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
}

func (x *exchange) send(code int) {
	x.out.Code = code
	x.w.WriteHeader(code)
}

// stream writes what is there, and flushes when nothing more is: the client's first byte comes when the
// origin's does.
func (x *exchange) stream(reader *store.Reader, body *store.Body) {
	flushed := false
	for {
		p, more, err := reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			x.trail(body.Trailer())
			return
		case err != nil:
			x.abort(Truncated)
		case more == nil:
			n, err := x.w.Write(p)
			x.out.Bytes += int64(n)
			flushed = false
			if err != nil {
				x.abort(ClientGone)
			}
		default:
			if !flushed {
				x.flush()
				flushed = true
			}
			select {
			case <-more:
			case <-x.r.Context().Done():
				x.abort(ClientGone)
			}
		}
	}
}

// trail sends trailers. The flush before them keeps net/http from giving a short answer a length instead of
// chunks, behind which nothing can follow.
func (x *exchange) trail(trailer http.Header) {
	if len(trailer) == 0 {
		return
	}
	x.flush()
	for name, lines := range trailer {
		x.w.Header()[http.TrailerPrefix+name] = lines
	}
}

func (x *exchange) flush() {
	_ = http.NewResponseController(x.w).Flush() // what cannot flush is a test's recorder or does not buffer
}

// abort cuts the connection, so that the client does not take what it has for the whole.
func (x *exchange) abort(why Reason) {
	x.out.Reason = why
	panic(http.ErrAbortHandler)
}

// relay gives a response to the one client it is for, and lets go of the origin when that client leaves.
func (x *exchange) relay(f *fill) {
	res := &f.result
	stop := context.AfterFunc(x.r.Context(), func() { f.cancel(errAbandoned) })
	defer stop()
	x.out.Status, x.out.Reason = statusMiss, res.why
	h := x.w.Header()
	from := endToEnd(res.response.Header)
	for name, lines := range from {
		h[name] = lines
	}
	if res.code == http.StatusOK && !f.transparent && notModified(x.view.Header, res.code, from) {
		x.addStatus(cacheStatus{fwd: x.why.forward(), fwdStatus: res.code, detail: res.why})
		for name := range h {
			if bare(name) {
				delete(h, name)
			}
		}
		x.send(http.StatusNotModified)
		return
	}
	s := cacheStatus{fwd: x.why.forward(), detail: res.why}
	if res.why == RequestHead {
		s.detail = ""
	}
	x.addStatus(s)
	x.send(res.code)
	x.pipe(res.response)
}

// pipe copies a body that nobody else reads. It flushes at once what has no length, and else whenever a read
// came back short, which is when no more bytes wait.
func (x *exchange) pipe(response *http.Response) {
	if x.view.Method == http.MethodHead {
		return
	}
	if response.ContentLength < 0 {
		x.flush()
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := response.Body.Read(buf)
		if n > 0 {
			m, werr := x.w.Write(buf[:n])
			x.out.Bytes += int64(m)
			if werr != nil {
				x.abort(ClientGone)
			}
			if n < len(buf) && err == nil {
				x.flush()
			}
		}
		switch {
		case err == io.EOF:
			x.trail(trailerOf(response))
			return
		case err != nil && x.r.Context().Err() != nil:
			x.abort(ClientGone)
		case err != nil:
			x.abort(Truncated)
		}
	}
}

// refuse answers for ourselves.
func (x *exchange) refuse(code int, why Reason) {
	x.out.Reason = why
	s := cacheStatus{fwd: x.why.forward(), collapsed: x.out.Collapsed, detail: why}
	if why == OnlyIfCached {
		s.fwd = "" // nowhere
	}
	text := http.StatusText(code) + "\n"
	h := x.w.Header()
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	x.addStatus(s)
	x.send(code)
	if x.view.Method != http.MethodHead {
		n, _ := io.WriteString(x.w, text)
		x.out.Bytes = int64(n)
	}
}

// inform passes a 1xx on (RFC 9110 §15.2). Its fields are not those of the answer.
func (x *exchange) inform(i interim) {
	if !x.r.ProtoAtLeast(1, 1) {
		return
	}
	h := x.w.Header()
	for name, lines := range endToEnd(i.header) {
		h[name] = lines
	}
	x.w.WriteHeader(i.code)
	for name := range i.header {
		delete(h, name)
	}
}
