package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

// Errors of a fill beside those of its origin.
var (
	errLength    = errors.New("cache: the origin's body and its Content-Length differ")
	errAbandoned = errors.New("cache: nobody waits for the response")
)

// retryAfter is how long a failing origin is left alone for what can be served stale meanwhile.
const retryAfter = time.Second

// fill is one fetch from the origin for all who wait for it. It has a goroutine of its own and does not end
// with the client that began it: before the head is in it lives as long as somebody waits; after that a
// response that is stored and whose length is known runs to its end, any other as long as somebody reads.
type fill struct {
	c      *Cache
	key    string
	view   View // of the request that leads; its header is not to be changed
	route  Route
	names  []string      // fields the answer is expected to vary by, from its stored siblings
	stale  *store.Object // being validated, a reference held; or nil
	behind bool          // nobody waits: validation behind a client's back
	// transparent: the leader's own conditions and ranges go to the origin, so what is no plain 200 is for it alone.
	transparent bool

	position uint64 // of purges, when the request left
	cancel   context.CancelCauseFunc
	interim  chan interim  // 1xx for the leader
	head     chan struct{} // closed when result may be read
	left     chan struct{} // closed by the leader when it is through
	result   result
	doomed   atomic.Bool // its URL changed under way
	toEnd    atomic.Bool // goes on when nobody reads

	clients int  // who waits or reads, the fill's goroutine included; guarded by fills.mu
	listed  bool // others may join; guarded by fills.mu
}

// result is what a fill came to when the response's head was in. One of object, response and err is set.
type result struct {
	object    *store.Object  // for everyone it fits; grows until sealed
	shared    bool           // others than the leader may use object
	stored    bool           // object is to be stored
	validated bool           // object was validated by a 304
	first     http.Header    // object's header as it came, for the leader; nil: as stored
	reader    *store.Reader  // the leader's, begun before anything could be dropped; nil: object is sealed
	response  *http.Response // for the leader alone
	why       Reason         // why nothing is stored
	err       error
	code      int           // the origin's status
	took      time.Duration // from request to head
}

type interim struct {
	code   int
	header http.Header
}

// newFill prepares a fetch for r. Its context keeps r's values and not its end.
func (c *Cache) newFill(x *exchange, stale *store.Object, names []string) (*fill, context.Context) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(x.r.Context()))
	f := &fill{
		c: c, key: string(x.key), view: x.view, route: x.route, names: names, clients: 2, cancel: cancel,
		interim: make(chan interim, 4), head: make(chan struct{}), left: make(chan struct{}),
	}
	if stale != nil && stale.Acquire() {
		f.stale = stale
	}
	return f, ctx
}

// discard gives up a fill that was never started.
func (f *fill) discard() {
	f.cancel(nil)
	f.releaseStale()
}

func (f *fill) releaseStale() {
	if f.stale != nil {
		f.stale.Release()
		f.stale = nil
	}
}

// start sends the request. The caller is the leader, or nobody when the fill is behind.
func (f *fill) start(ctx context.Context, r *http.Request) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: f.early})
	f.position = f.c.purges.position.Load()
	go f.run(ctx, f.request(ctx, r))
}

// request is the leader's, made to fetch what everyone can use.
func (f *fill) request(ctx context.Context, r *http.Request) *http.Request {
	out := r.Clone(ctx)
	out.Method, out.RequestURI = f.view.Method, ""
	out.Body, out.ContentLength = nil, 0
	switch {
	case f.view.Method == http.MethodHead || f.transparent && !f.validates():
	case f.stale != nil:
		validate(out.Header, f.stale)
	default:
		unconditional(out.Header)
	}
	return out
}

// validates reports whether the request is conditional on what is stored. Without a validator the stored
// response can only stand in when the origin fails.
func (f *fill) validates() bool { return f.stale != nil && validatable(f.stale.Header) }

// early hands 1xx to the leader while it waits. What it cannot take in time is lost: it is information.
func (f *fill) early(code int, h textproto.MIMEHeader) error {
	if code == http.StatusContinue || code == http.StatusSwitchingProtocols {
		return nil
	}
	select {
	case f.interim <- interim{code, http.Header(h).Clone()}:
	default:
	}
	return nil
}

// run is the fill's goroutine.
func (f *fill) run(ctx context.Context, r *http.Request) {
	defer f.c.fills.ended(f)
	defer f.depart()
	defer f.c.fills.unlist(f) // first: nobody joins what has let go of its object
	defer f.releaseStale()
	defer f.cancel(nil)
	f.fetch(ctx, r)
}

func (f *fill) fetch(ctx context.Context, r *http.Request) {
	sent := f.c.now()
	response, err := f.route.Fetch.RoundTrip(r)
	received := f.c.now()
	f.result.took = received.Sub(sent)
	if err != nil {
		f.failed(err)
		return
	}
	defer response.Body.Close()
	f.result.code = response.StatusCode
	h := endToEnd(response.Header)
	if len(h["Date"]) == 0 {
		h["Date"] = []string{received.UTC().Format(http.TimeFormat)} // RFC 9110 §6.6.1
	}
	switch {
	case f.view.Method == http.MethodHead:
		f.freshen(response.StatusCode, h, sent, received)
		f.handOver(response, RequestHead)
	case response.StatusCode != http.StatusNotModified || !f.validates():
		f.arrived(ctx, response, h, sent, received)
	case updates(h, f.stale):
		f.validated(h, sent, received)
	default: // it speaks of something we do not have: ask for that
		f.releaseStale()
		whole := r.Clone(ctx)
		unconditional(whole.Header)
		f.fetch(ctx, whole)
	}
}

func (f *fill) failed(err error) {
	f.result.err = err
	if f.stale != nil && mayServeOnError(f.stale, f.c.now()) {
		f.stale.RetryAt.Store(f.c.now().Add(retryAfter).UnixNano())
	}
	f.publishAlone()
}

// publishAlone shows the result to those who wait and lets nobody join any more.
func (f *fill) publishAlone() {
	f.c.fills.unlist(f)
	close(f.head)
}

// handOver gives the response to the leader and waits until it is through: nobody else may have it.
func (f *fill) handOver(response *http.Response, why Reason) {
	f.result.response, f.result.why = response, why
	f.publishAlone()
	if f.behind {
		return
	}
	<-f.left // a leader still there meets the end of the fill's context in the body
}

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
		f.handOver(response, v.why)
		return
	}
	body := f.c.store.NewBody(response.ContentLength)
	defer body.Release()
	f.publish(v, h, body, received)
	f.pump(ctx, response, body)
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
	f.c.fills.setPassive(f.key, !f.result.shared, now)
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
		f.keep(o)
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
		f.keep(o)
		o.Release()
	}
}

// depart takes one client, or the fill's goroutine, off. When no client is left the fill ends, unless it is
// worth its end; when nobody is, its object is the store's alone.
func (f *fill) depart() {
	switch f.c.fills.leave(f) {
	case 0:
		if f.result.object != nil {
			f.result.object.Release()
		}
	case 1:
		if !f.behind && !f.toEnd.Load() {
			f.cancel(errAbandoned)
		}
	}
}

// departLeader is depart for the one that began the fill. One that was served, if only with a 304, wants the
// rest to be stored; one that hung up may have done so for its length.
func (f *fill) departLeader(served bool) {
	if served {
		f.toEnd.Store(true)
	}
	close(f.left)
	select {
	case <-f.head:
		f.closeReader()
	default: // publish will see that we left
	}
	f.depart()
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
