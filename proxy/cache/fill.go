package cache

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
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
