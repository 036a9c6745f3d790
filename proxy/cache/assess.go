package cache

import (
	"time"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

// use is what a stored response is good for, for one request at one moment.
type use uint8

const (
	useNot      use = iota // not for this request
	useValidate            // after validation
	useStale               // at once, and validate behind the client's back
	useNow                 // at once
)

// age is the current age of a stored response (RFC 9111 §4.2.3).
func age(o *store.Object, now time.Time) time.Duration {
	return max(0, o.Age+now.Sub(o.Received))
}

// ttl is what is left of its lifetime; negative when stale. A soft purge ends the lifetime.
func ttl(o *store.Object, now time.Time) time.Duration {
	left := o.Lifetime - age(o, now)
	if at := o.StaleAt.Load(); at != 0 {
		left = min(left, time.Unix(0, at).Sub(now))
	}
	return left
}

// assess decides what o is good for (RFC 9111 §4), and why.
func assess(v *View, o *store.Object, now time.Time) (use, Reason) {
	left := ttl(o, now)
	switch {
	case o.Implicit && hasCookie(v.Header):
		return useNot, Cookie
	case o.NoCache:
		return useValidate, ResponseNoCache
	case v.ask.noCache:
		return useValidate, RequestNoCache
	case v.ask.maxAge != never && age(o, now) > v.ask.maxAge:
		return useValidate, RequestMaxAge
	case v.ask.minFresh != never && left < v.ask.minFresh:
		return useValidate, RequestMinFresh
	case left > 0:
		return useNow, Fresh
	case v.ask.maxStale != never && -left <= v.ask.maxStale && !o.NoStale && o.StaleAt.Load() == 0:
		return useNow, MaxStale
	case v.ask.maxAge != never:
		return useValidate, Expired // it asked for freshness: no staleness on anyone else's word
	case -left < o.Revalidate:
		return useStale, StaleWhileRevalidate
	case failedLately(o, now) && -left < o.IfError:
		return useStale, StaleIfError
	case o.StaleAt.Load() != 0:
		return useValidate, SoftPurged
	}
	return useValidate, Expired
}

// failureCounts is how long after a failure its origin is taken to fail still, so that what may be stale is served
// before the origin was asked (RFC 5861 §4 allows it when "an error is encountered"). Within it the origin is asked
// once every retryAfter, behind clients' backs; who comes later waits for its answer.
const failureCounts = 30 * time.Second

func failedLately(o *store.Object, now time.Time) bool {
	at := o.RetryAt.Load()
	return at != 0 && now.Sub(time.Unix(0, at)) < failureCounts
}

// mayServeOnError reports whether o may stand in for an origin that fails (RFC 5861 §4).
func mayServeOnError(o *store.Object, now time.Time) bool {
	return !o.NoCache && -ttl(o, now) < o.IfError
}
