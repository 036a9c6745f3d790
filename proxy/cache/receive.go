package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

// arrived takes a whole response: into the store and to everyone, or to the leader alone.
func (f *fill) arrived(ctx context.Context, response *http.Response, h http.Header, sent, received time.Time) {
	v := judge(&f.view, f.route.Policy, response.StatusCode, h, sent, received)
	switch {
	case v.store && f.transparent && response.StatusCode != http.StatusOK && conditional(f.view.Header):
		v = verdict{why: Status} // an answer to this client's conditions, not to the URL
	case v.store && response.ContentLength > f.limit():
		v = verdict{why: TooLarge}
	case f.stale != nil && failing(response.StatusCode) && mayServeOnError(f.stale, received):
		f.stale.RetryAt.Store(received.Add(retryAfter).UnixNano())
		v = verdict{why: OriginError}
	}
	if !v.store {
		f.remember(v.why, received)
		if f.stale != nil && supersedes(v.why, response.StatusCode) {
			f.c.store.Remove(f.stale)
		}
		f.handOver(response, v.why)
		return
	}
	body := f.c.store.NewBody(response.ContentLength)
	defer body.Release()
	f.publish(v, h, body, received)
	f.pump(ctx, response, body)
}

// supersedes reports whether an answer that is not stored ends what was stored before all the same: the page is
// private now, or no more, and its past must not come back when the origin fails. What is for this request alone,
// and the origin's bad moment, say nothing of the page.
func supersedes(why Reason, status int) bool {
	switch why {
	case NoStore, Private, VaryStar, SetCookie, MustUnderstand, NoLifetime, TooLarge:
		return !failing(status)
	}
	return false
}

// remember keeps others from waiting in vain for what cannot be shared. What was this request's own doing, or
// the origin's bad moment, says nothing about the next.
func (f *fill) remember(why Reason, now time.Time) {
	switch why {
	case RequestNoStore, RequestHead, OriginError:
	default:
		if !failing(f.result.code) {
			f.c.fills.setPassive(f.key, true, now)
		}
	}
}

// object makes what is stored of a response.
func (f *fill) object(v verdict, h http.Header, body *store.Body) *store.Object {
	stored := h
	if len(v.strip) > 0 || len(h["Age"]) > 0 {
		stored = h.Clone()
		delete(stored, "Age")
		for _, name := range v.strip {
			delete(stored, name)
		}
	}
	v.head.Header, v.head.Position = stored, f.position
	return f.c.store.NewObject(f.key, v.head, body)
}

// publish shows a response to everyone, its body still to come.
func (f *fill) publish(v verdict, h http.Header, body *store.Body, now time.Time) {
	o := f.object(v, h, body)
	f.result.object, f.result.first, f.result.stored = o, h, true
	f.result.shared = shareable(o, now)
	if !f.behind {
		f.result.reader, _ = body.Reader(0, -1) // fails only once unstored
	}
	f.toEnd.Store(body.Length() >= 0)
	if f.result.shared || !failing(o.Status) {
		f.c.fills.setPassive(f.key, !f.result.shared, now)
	}
	if !f.result.shared {
		f.c.fills.unlist(f)
	}
	close(f.head)
	select {
	case <-f.left:
		f.closeReader()
	default: // the leader is there, or will see the head closed when it leaves
	}
}

func (f *fill) closeReader() {
	if f.result.reader != nil {
		f.result.reader.Close()
	}
}

// pump moves the body from the origin to the object, and the object to the store when it is whole.
func (f *fill) pump(ctx context.Context, response *http.Response, body *store.Body) {
	if err := f.copy(ctx, response.Body, body); err != nil {
		f.c.fills.unlist(f)
		body.Fail(err)
		return
	}
	body.Seal(trailerOf(response))
	if body.Sealed() {
		f.keep(f.result.object)
	}
}

func (f *fill) copy(ctx context.Context, from io.Reader, body *store.Body) error {
	length, limit, stored := body.Length(), f.limit(), true
	for size := int64(0); ; {
		if stored && size > limit {
			stored = false
			f.unstore(body)
		}
		p, err := body.Space(ctx)
		if stored && errors.Is(err, store.ErrNoRoom) {
			stored = false
			f.unstore(body)
			continue
		}
		if err != nil {
			return err
		}
		n, err := from.Read(p)
		body.Grown(n)
		size += int64(n)
		f.c.metrics.filled.Add(float64(n))
		switch {
		case length >= 0 && size > length:
			return errLength
		case err == io.EOF && length >= 0 && size < length:
			return errLength
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// unstore goes on for those who read, and for them alone.
func (f *fill) unstore(body *store.Body) {
	f.toEnd.Store(false)
	f.c.fills.unlist(f)
	body.Unstore()
	f.c.metrics.unstored.Inc()
}

// keep stores a whole response, unless its URL changed under way. Whoever changes it dooms the fill first and
// clears the store after, so one of the two sees the other.
func (f *fill) keep(o *store.Object) {
	if f.doomed.Load() || f.c.purges.gone(o) {
		return
	}
	if err := f.c.store.Put(o); err != nil {
		return // full of what is being read; the answers are under way all the same
	}
	if f.doomed.Load() {
		f.c.store.Remove(o)
	}
}

// replace stores the stale response's successor. When the origin has changed its Vary the two are different
// variants, and the old one would go on matching what it no longer should.
func (f *fill) replace(o *store.Object) {
	f.keep(o)
	if o.Variant != f.stale.Variant {
		f.c.store.Remove(f.stale)
	}
}

// validated takes a 304: a new head for the body we have (RFC 9111 §4.3.4).
func (f *fill) validated(h http.Header, sent, received time.Time) {
	all := merged(f.stale.Header, h)
	v := judge(&f.view, f.route.Policy, f.stale.Status, all, sent, received)
	if !v.store { // no longer to be kept, and still the answer to this request
		f.c.store.Remove(f.stale)
		v.head = store.Head{Status: f.stale.Status, NoCache: true, Sent: sent, Received: received, Age: initialAge(all, sent, received)}
		f.result.why = v.why
	}
	o := f.object(v, all, f.stale.Body)
	f.result.object, f.result.validated, f.result.stored = o, true, v.store
	f.result.shared = v.store && shareable(o, received)
	f.c.fills.setPassive(f.key, !f.result.shared, received)
	if v.store {
		f.replace(o)
	}
	f.publishAlone() // who comes now finds it in the store
}

// freshen updates what is stored by what a HEAD says of it, or forgets it (RFC 9111 §4.3.5).
func (f *fill) freshen(status int, h http.Header, sent, received time.Time) {
	if f.stale == nil || status != http.StatusOK {
		return
	}
	if !sameRepresentation(h, f.stale) {
		f.c.store.Remove(f.stale)
		return
	}
	get := f.view
	get.Method = http.MethodGet
	all := merged(f.stale.Header, h)
	if v := judge(&get, f.route.Policy, f.stale.Status, all, sent, received); v.store {
		o := f.object(v, all, f.stale.Body)
		f.replace(o)
		o.Release()
	}
}

// limit is the size of the largest body that is stored.
func (f *fill) limit() int64 {
	if largest := f.c.store.Largest(); f.route.Policy.MaxObject <= 0 || largest < int64(f.route.Policy.MaxObject) {
		return largest
	}
	return int64(f.route.Policy.MaxObject)
}

// shareable reports whether an answer to one client may be the answer to those who waited with it.
func shareable(o *store.Object, now time.Time) bool {
	return !o.NoCache && ttl(o, now)+o.Revalidate > 0
}

// sameRepresentation compares what a HEAD tells with what is stored.
func sameRepresentation(h http.Header, o *store.Object) bool {
	for _, name := range []string{"Etag", "Last-Modified", "Content-Length"} {
		if told := h[name]; len(told) > 0 && len(o.Header[name]) > 0 && !slices.Equal(told, o.Header[name]) {
			return false
		}
	}
	return true
}

// failing lists the answers for which stale-if-error stands in (RFC 5861 §4).
func failing(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}

func conditional(h http.Header) bool {
	return len(h["Range"])+len(h["If-None-Match"])+len(h["If-Modified-Since"]) > 0
}

func trailerOf(response *http.Response) http.Header {
	var t http.Header
	for name, lines := range response.Trailer {
		if len(lines) > 0 {
			if t == nil {
				t = http.Header{}
			}
			t[name] = lines
		}
	}
	return t
}
