package cache

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

const (
	statusHit         = "hit"
	statusStale       = "stale"
	statusRevalidated = "revalidated"
	statusMiss        = "miss"
	statusBypass      = "bypass"
)

// maxTurns bounds how often a request that waited in vain waits again before it fetches for itself.
const maxTurns = 3

// exchange is one request and its answer.
type exchange struct {
	c     *Cache
	w     http.ResponseWriter
	r     *http.Request
	route Route
	view  View
	key   []byte
	room  [192]byte // for key
	out   Outcome

	why   Reason // of going to the origin
	alone bool   // waits for nobody and lets nobody wait
	turn  int    // how often it came back empty-handed
}

// found is what a look into the store gave.
type found struct {
	object *store.Object // a reference is held; nil: nothing
	use    use
	why    Reason
	names  []string // fields that responses under this key vary by
}

// Serve answers r, whose header must not be changed afterwards: a fetch may outlive the call. It panics with
// http.ErrAbortHandler when an answer had to be cut off after its head was sent, so that the client does not take
// it for whole; route.Aborted is told the outcome before.
func (c *Cache) Serve(w http.ResponseWriter, r *http.Request, route Route) Outcome {
	x := &exchange{c: c, w: w, r: r, route: route, view: NewView(r, route.Scheme)}
	whole := false
	defer func() {
		c.metrics.observe(route.Site, &x.out)
		if !whole && route.Aborted != nil {
			route.Aborted(x.out)
		}
	}()
	if why := x.view.bypass(r, route.Policy); why != "" {
		x.pass(why)
	} else {
		x.answer()
	}
	whole = true
	return x.out
}

// answer finds or fetches a response and delivers it.
func (x *exchange) answer() {
	x.key = x.view.AppendKey(x.room[:0])
	for ; ; x.turn++ {
		generation := x.c.fills.generationOf(x.key)
		f := x.c.lookup(&x.view, x.key, x.c.now())
		if x.useFound(f, generation) {
			return
		}
	}
}

// useFound serves what lookup found, or what the origin has; false: the store should be asked again.
func (x *exchange) useFound(f found, generation uint32) bool {
	if f.object != nil {
		defer f.object.Release()
	}
	switch {
	case f.use == useNow:
		x.hit(f)
		return true
	case f.use == useStale:
		x.c.refresh(x, f, generation)
		x.hit(f)
		return true
	case x.view.ask.onlyIfCached:
		x.follow()
		return true
	}
	return x.fetch(f, generation)
}

// follow answers only-if-cached when the store has nothing: from a response that is coming in, or with 504.
func (x *exchange) follow() {
	if f := x.c.fills.follow(string(x.key), &x.view); f != nil {
		defer f.depart()
		if !x.c.purges.gone(f.result.object) && x.deliverFetched(f, reads) {
			return
		}
	}
	x.out.Status = statusMiss
	x.refuse(http.StatusGatewayTimeout, OnlyIfCached)
}

// lookup chooses the stored response for a request, and what it is good for. Of several it is "the most recent one
// (as determined by the Date header field)" (RFC 9111 §4).
func (c *Cache) lookup(v *View, key []byte, now time.Time) found {
	best := found{why: URIMiss}
	for _, o := range c.store.Variants(key) {
		if best.names == nil && len(o.Vary) > 0 {
			best.names = namesOf(o.Vary)
		}
		if !selects(o.Vary, v.Header) {
			if best.why == URIMiss {
				best.why = VaryMiss
			}
			continue
		}
		if c.purges.gone(o) {
			c.store.Remove(o)
			if best.object == nil {
				best.why = Purged
			}
			continue
		}
		best.consider(o, v, now)
	}
	if best.object != nil {
		best.object.Used()
	}
	return best
}

// consider takes o, which matches, instead of what was found so far if it is the more recent. Objects come with
// the one stored last first.
func (f *found) consider(o *store.Object, v *View, now time.Time) {
	if f.object != nil && !dateOf(o.Header, o.Received).After(dateOf(f.object.Header, f.object.Received)) {
		return
	}
	u, why := assess(v, o, now)
	if u == useNot || !o.Acquire() {
		if f.object == nil {
			f.why = why
		}
		return
	}
	if f.object != nil {
		f.object.Release()
	}
	f.object, f.use, f.why = o, u, why
}

func namesOf(vary []store.Selector) []string {
	names := make([]string, len(vary))
	for i, s := range vary {
		names[i] = s.Name
	}
	return names
}

// refresh validates a stale response behind the client's back, unless that is under way or the origin has just
// failed.
func (c *Cache) refresh(x *exchange, found found, generation uint32) {
	o := found.object
	now := c.now()
	if now.UnixNano() < o.RetryAt.Load() {
		return
	}
	f, ctx := c.newFill(x, o, found.names)
	f.behind, f.clients = true, 1
	f.view.Method, f.view.ask = http.MethodGet, parseRequestControl(nil)
	joined, as := c.fills.join(f, generation)
	if as != leads {
		if joined != nil {
			joined.depart()
		}
		f.discard()
		return
	}
	f.start(ctx, x.r)
}

// fetch goes to the origin, or waits with those who did. It reports false when the request is to begin again.
func (x *exchange) fetch(found found, generation uint32) bool {
	x.why = found.why
	f, as := x.begin(found, generation)
	if f == nil {
		return false
	}
	if as == leads {
		defer func() { f.departLeader(x.r.Context().Err() == nil) }()
	} else {
		defer f.depart()
	}
	if !x.await(f, as) {
		x.out.Status, x.out.Reason = statusMiss, ClientGone
		return true
	}
	if as != reads {
		x.out.Upstream = f.result.took
	}
	switch {
	case f.result.err != nil:
		return x.failed(f, as, found.object)
	case f.result.object != nil:
		return x.settle(f, as)
	}
	return x.handed(f, as, found.object)
}

// begin joins a fill under way or starts one.
func (x *exchange) begin(found found, generation uint32) (*fill, role) {
	c := x.c
	f, ctx := c.newFill(x, found.object, found.names)
	alone := x.alone || x.turn > maxTurns || x.view.Method == http.MethodHead || x.view.ask.noStore ||
		found.why == Cookie || c.fills.isPassive(f.key, c.now())
	if alone {
		f.transparent = true
		c.fills.lead(f)
	} else {
		joined, as := c.fills.join(f, generation)
		if as != leads {
			f.discard()
			return joined, as
		}
	}
	f.start(ctx, x.r)
	return f, leads
}

// await waits for the response's head, passing 1xx on; false: the client left.
func (x *exchange) await(f *fill, as role) bool {
	var early <-chan interim
	if as == leads {
		early = f.interim
	} else {
		began := x.c.now()
		defer func() { x.c.metrics.waits.Observe(x.c.now().Sub(began).Seconds()) }()
	}
	for {
		select {
		case i := <-early:
			x.inform(i)
		case <-f.head:
			for len(early) > 0 {
				x.inform(<-early)
			}
			return true
		case <-x.r.Context().Done():
			return false
		}
	}
}

// settle answers from the object a fill brought.
func (x *exchange) settle(f *fill, as role) bool {
	res := &f.result
	if as != leads {
		switch {
		case !res.shared && failing(res.code):
			return x.failedToo(res.code, OriginError)
		case !res.shared:
			x.alone = true
			return false
		case !selects(res.object.Vary, x.view.Header):
			return false
		case res.object.Implicit && hasCookie(x.view.Header):
			x.alone = true
			return false
		case x.c.purges.gone(res.object):
			x.c.fills.unlist(f)
			return false
		}
	}
	return x.deliverFetched(f, as)
}

// failed answers when the origin did not: stale, if that is allowed, or with an error.
func (x *exchange) failed(f *fill, as role, stale *store.Object) bool {
	now := x.c.now()
	if stale != nil && mayServeOnError(stale, now) {
		x.standIn(f, stale)
		return true
	}
	code, why := http.StatusBadGateway, OriginError
	if timedOut(f.result.err) || stale != nil && stale.NoStale {
		code, why = http.StatusGatewayTimeout, OriginTimeout // RFC 9111 §5.2.2.2: 504 for must-revalidate
	}
	if as != leads {
		return x.failedToo(code, why)
	}
	x.out.Status = statusMiss
	x.refuse(code, why)
	return true
}

// failedToo answers those who waited for what failed. They try once more, one for all, since the failure may have
// been of the leader's own request; then they share it. Each asking for itself would be the end of an origin in
// distress.
func (x *exchange) failedToo(code int, why Reason) bool {
	if x.turn == 0 {
		return false
	}
	x.out.Status, x.out.Collapsed = statusMiss, true
	x.refuse(code, why)
	return true
}

// handed answers with a response that is the leader's alone.
func (x *exchange) handed(f *fill, as role, stale *store.Object) bool {
	res := &f.result
	switch {
	case failing(res.code) && stale != nil && mayServeOnError(stale, x.c.now()):
		x.standIn(f, stale)
		return true
	case as != leads && failing(res.code):
		return x.failedToo(res.code, OriginError)
	case as != leads:
		x.alone = true
		return false
	case !f.transparent && f.view.Method == http.MethodGet && res.code == http.StatusOK &&
		len(x.view.Header["Range"]) > 0 && (res.response.ContentLength < 0 || res.response.ContentLength > wholeInstead):
		x.alone = true // the client wants a part of something large: let the origin cut it
		return false
	}
	x.relay(f)
	return true
}

// wholeInstead is how large a whole response may be that a client gets which asked for a part.
const wholeInstead = 1 << 20

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
