package cache_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// The model is RFC 9111 again, slow and obvious, over values and not over text: what a response says is known
// here, so nothing is parsed. Where the RFC leaves a choice it makes ours, and says so.

// never is what was not said.
const never = -1

// control is what a response says about its storage.
type control struct {
	targeted                                    bool // in CDN-Cache-Control, beside a Cache-Control that says otherwise
	noStore, noCache, private, public           bool
	mustRevalidate, proxyRevalidate, understand bool
	maxAge, sMaxAge, whileRevalidate, ifError   int
}

// modelResponse is one response of the origin.
type modelResponse struct {
	id      int
	status  int
	control control
	spoken  bool // control is in the header at all

	date       time.Time // zero: no Date
	expires    time.Time // zero: none
	badExpires bool      // it has one that is no date
	modified   time.Time // zero: none
	age        int
	etag       string
	vary       string // empty, X-V or *
	cookie     bool   // Set-Cookie
}

// modelRequest is one request of a client.
type modelRequest struct {
	method, url, v                 string
	noCache, noStore, onlyIfCached bool
	maxAge, minFresh, maxStale     int
	anyStale, credentials, cookie  bool
}

// entry is one response the model has stored.
type entry struct {
	response       modelResponse
	body           int // id of the response whose body it is
	v              string
	sent, received time.Time
	lifetime       time.Duration
	unstated       bool // its lifetime is assumed, or none
	retryAt        time.Time
}

func (r modelResponse) header() http.Header {
	h := http.Header{"X-Id": {fmt.Sprint(r.id)}}
	if r.spoken {
		name := "Cache-Control"
		if r.control.targeted {
			name = "Cdn-Cache-Control"
			h["Cache-Control"] = []string{[]string{"no-store", "max-age=100000", "private"}[r.id%3]}
		}
		h[name] = []string{r.control.String()}
	}
	set := func(name, value string, has bool) {
		if has {
			h[name] = []string{value}
		}
	}
	set("Date", r.date.Format(http.TimeFormat), !r.date.IsZero())
	set("Expires", r.expires.Format(http.TimeFormat), !r.expires.IsZero())
	set("Expires", "0", r.badExpires)
	set("Last-Modified", r.modified.Format(http.TimeFormat), !r.modified.IsZero())
	set("Age", fmt.Sprint(r.age), r.age != never)
	set("Etag", r.etag, r.etag != "")
	set("Vary", r.vary, r.vary != "")
	set("Set-Cookie", "a=b", r.cookie)
	return h
}

func (c control) String() string {
	var parts []string
	flag := func(name string, is bool) {
		if is {
			parts = append(parts, name)
		}
	}
	number := func(name string, n int) {
		if n != never {
			parts = append(parts, fmt.Sprint(name, "=", n))
		}
	}
	flag("no-store", c.noStore)
	flag("no-cache", c.noCache)
	flag("private", c.private)
	flag("public", c.public)
	number("max-age", c.maxAge)
	flag("must-revalidate", c.mustRevalidate)
	flag("proxy-revalidate", c.proxyRevalidate)
	flag("must-understand", c.understand)
	number("s-maxage", c.sMaxAge)
	number("stale-while-revalidate", c.whileRevalidate)
	number("stale-if-error", c.ifError)
	flag("extension", true)
	return strings.Join(parts, ", ")
}

func (q modelRequest) header() http.Header {
	h := http.Header{}
	var parts []string
	if q.noCache {
		parts = append(parts, "no-cache")
	}
	if q.noStore {
		parts = append(parts, "no-store")
	}
	if q.onlyIfCached {
		parts = append(parts, "only-if-cached")
	}
	for name, n := range map[string]int{"max-age": q.maxAge, "min-fresh": q.minFresh, "max-stale": q.maxStale} {
		if n != never {
			parts = append(parts, fmt.Sprint(name, "=", n))
		}
	}
	if q.anyStale {
		parts = append(parts, "max-stale")
	}
	if len(parts) > 0 {
		h["Cache-Control"] = []string{strings.Join(parts, ",")}
	}
	if q.v != "" {
		h["X-V"] = []string{q.v}
	}
	if q.credentials {
		h["Authorization"] = []string{"Basic x"}
	}
	if q.cookie {
		h["Cookie"] = []string{"c=d"}
	}
	return h
}

// dated is when the response says it was made; the cache adds what is not there (RFC 9110 §6.6.1).
func (e *entry) dated() time.Time {
	if e.response.date.IsZero() {
		return e.received
	}
	return e.response.date
}

// age is RFC 9111 §4.2.3, line by line.
func (e *entry) age(now time.Time) time.Duration {
	apparentAge := max(0, e.received.Sub(e.dated()))
	responseDelay := e.received.Sub(e.sent)
	correctedAgeValue := time.Duration(max(0, e.response.age))*time.Second + responseDelay
	correctedInitialAge := max(apparentAge, correctedAgeValue)
	residentTime := now.Sub(e.received)
	return correctedInitialAge + residentTime
}

func (e *entry) left(now time.Time) time.Duration { return e.lifetime - e.age(now) }

// neverStale: the origin forbids any use past its lifetime (RFC 9111 §5.2.2.2, .4, .8, .10).
func (e *entry) neverStale() bool {
	c := e.response.control
	return c.noCache || c.mustRevalidate || c.proxyRevalidate || c.sMaxAge != never
}

// grace is how long it may be used past its lifetime (RFC 5861). An s-maxage beside it does not take it back: who
// says both means both.
func (e *entry) grace(stated int) time.Duration {
	c := e.response.control
	if stated == never || c.noCache || c.mustRevalidate || c.proxyRevalidate {
		return 0
	}
	return time.Duration(stated) * time.Second
}

// store9111 decides RFC 9111 §3 and, beyond it, what we choose not to store. nil: not stored.
func store9111(r modelResponse, body int, q modelRequest, sent, received time.Time) *entry {
	c := r.control
	understood := map[int]bool{200: true, 203: true, 204: true, 300: true, 301: true, 302: true, 303: true, 307: true, 308: true, 404: true, 405: true, 410: true, 414: true, 421: true, 451: true, 501: true}
	byDefault := understood[r.status] && r.status != 302 && r.status != 303 && r.status != 307 && r.status != 421 && r.status != 451
	switch {
	case q.method != "GET", q.noStore, c.private, r.vary == "*":
		return nil
	case c.understand && !understood[r.status], c.noStore && !c.understand:
		return nil
	case q.credentials && !c.public && !c.mustRevalidate && c.sMaxAge == never:
		return nil
	case r.cookie: // our choice
		return nil
	}
	e := &entry{response: r, body: body, v: q.v, sent: sent, received: received}
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	switch hasExpires := !r.expires.IsZero() || r.badExpires; {
	case c.sMaxAge != never:
		e.lifetime = seconds(c.sMaxAge)
	case c.maxAge != never:
		e.lifetime = seconds(c.maxAge)
	case hasExpires && !c.targeted:
		if !r.badExpires {
			e.lifetime = max(0, r.expires.Sub(e.dated()))
		}
	case c.noCache:
	case (byDefault || c.public) && !r.modified.IsZero(): // §4.2.2, and our bound
		e.lifetime, e.unstated = min(max(0, e.dated().Sub(r.modified)/10), 5*time.Minute), true
	default:
		e.unstated = true
	}
	validator := r.etag != "" || !r.modified.IsZero()
	standsIn := !e.unstated && e.grace(c.whileRevalidate)+e.grace(c.ifError) > 0
	failure := r.status == 500 || r.status == 502 || r.status == 503 || r.status == 504
	spoken := r.spoken || !r.expires.IsZero() || r.badExpires
	shared := !e.unstated && !c.noCache && (e.lifetime > 0 || e.grace(c.whileRevalidate) > 0)
	switch {
	case (e.lifetime == 0 || c.noCache) && !standsIn && (!validator || failure): // of no use to anyone
		return nil
	case e.lifetime == 0 && !shared && !spoken: // our choice: nothing is assumed
		return nil
	case !shared && q.cookie: // our choice: an origin that states nothing may have forgotten private
		return nil
	}
	e.unstated = !shared
	return e
}

// serves is what a stored response is good for.
type serves int

const (
	nothing serves = iota
	validation
	behind // at once, and validated behind the client's back
	atOnce
)

// good decides RFC 9111 §4 and §5.2.1 for an entry that matches.
func (e *entry) good(q modelRequest, now time.Time) serves {
	age, left := e.age(now), e.left(now)
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	switch {
	case e.response.control.noCache, q.noCache:
		return validation
	case q.maxAge != never && age > seconds(q.maxAge):
		return validation
	case q.minFresh != never && left < seconds(q.minFresh):
		return validation
	case e.lifetime > age:
		return atOnce
	case !e.neverStale() && (q.anyStale || q.maxStale != never && -left <= seconds(q.maxStale)):
		return atOnce
	case q.maxAge != never: // our choice: who asks for freshness gets no staleness on somebody else's word
		return validation
	case -left < e.grace(e.response.control.whileRevalidate):
		return behind
	case !e.retryAt.IsZero() && now.Before(e.retryAt.Add(30*time.Second)) && e.standsIn(now): // our choice of "lately"
		return behind
	}
	return validation
}

// standsIn: for an origin that fails (RFC 5861 §4).
func (e *entry) standsIn(now time.Time) bool {
	return !e.response.control.noCache && -e.left(now) < e.grace(e.response.control.ifError)
}

// freshened is RFC 9111 §3.2 for the fields the model knows.
func freshened(old, newer modelResponse) modelResponse {
	r := old
	r.id, r.age = newer.id, newer.age
	if newer.spoken && (newer.control.targeted || !old.control.targeted) {
		r.control, r.spoken = newer.control, true
	}
	if !newer.expires.IsZero() || newer.badExpires {
		r.expires, r.badExpires = newer.expires, newer.badExpires
	}
	r.date = newer.date
	if !newer.modified.IsZero() {
		r.modified = newer.modified
	}
	if newer.vary != "" {
		r.vary = newer.vary
	}
	r.cookie = false // that of a 304 is for its client alone
	return r
}

// chance picks what origins and clients do.
type chance struct{ *rand.Rand }

func (c chance) oneIn(n int) bool { return c.IntN(n) == 0 }

func (c chance) maybe(oneIn, below int) int {
	if c.oneIn(oneIn) {
		return c.IntN(below)
	}
	return never
}

func (c chance) of(values ...string) string { return values[c.IntN(len(values))] }

func (c chance) request() modelRequest {
	return modelRequest{
		method: c.of("GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST"), url: c.of("/a", "/b", "/c"), v: c.of("", "", "1", "2"),
		noCache: c.oneIn(20), noStore: c.oneIn(40), onlyIfCached: c.oneIn(20),
		maxAge: c.maybe(12, 60), minFresh: c.maybe(12, 60), maxStale: c.maybe(12, 60), anyStale: c.oneIn(30),
		credentials: c.oneIn(12), cookie: c.oneIn(8),
	}
}

func (c chance) response(id int, now time.Time, status int) modelResponse {
	r := modelResponse{id: id, status: status, spoken: !c.oneIn(8), date: now, age: c.maybe(6, 40), cookie: c.oneIn(20),
		etag: c.of("", `"a"`, `"b"`), vary: c.of("", "", "", "X-V", "X-V", "*")}
	r.control = control{maxAge: never, sMaxAge: never, whileRevalidate: never, ifError: never}
	if r.spoken {
		r.control = control{targeted: c.oneIn(8),
			noStore: c.oneIn(25), noCache: c.oneIn(12), private: c.oneIn(25), public: c.oneIn(8),
			mustRevalidate: c.oneIn(10), proxyRevalidate: c.oneIn(25), understand: c.oneIn(25),
			maxAge: c.IntN(120), sMaxAge: c.maybe(8, 120), whileRevalidate: c.maybe(4, 60), ifError: c.maybe(3, 120)}
		if c.oneIn(4) {
			r.control.maxAge = never
		}
	}
	switch c.IntN(10) {
	case 0:
		r.date = time.Time{}
	case 1:
		r.date = now.Add(time.Duration(c.IntN(60)-30) * time.Second)
	}
	switch c.IntN(8) {
	case 0:
		r.badExpires = true
	case 1:
		r.expires = now.Add(time.Duration(c.IntN(120)-20) * time.Second)
	}
	if c.oneIn(3) {
		r.modified = now.Add(-time.Duration(c.IntN(4000)) * time.Second)
	}
	return r
}
