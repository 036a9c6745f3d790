package cache

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

// maxHeuristic bounds a lifetime that the origin did not state.
//
// RFC 9111 §4.2.2 allows a tenth of the time since Last-Modified. For a page last changed a year ago that is
// five weeks, which nobody who runs a site means; five minutes take nearly all the load of what is popular, and
// are over before anyone wonders where the new version is. Such a response is also never shared with, or taken
// from, a request that carries a Cookie: origins that state nothing are the ones that forget to say private.
const maxHeuristic = 5 * time.Minute

// verdict is what a response may be kept for.
type verdict struct {
	store bool
	why   Reason // when not
	head  store.Head
	strip []string // fields to leave out of what is stored
}

// judge decides whether the response to v may be stored (RFC 9111 §3) and for how long it is fresh. The
// returned head lacks Header and Position.
func judge(v *View, policy config.Cache, status int, h http.Header, sent, received time.Time) verdict {
	c := parseResponseControl(h)
	vary, known := selectors(h, v.Header)
	if why := forbidden(v, c, status, h, known); why != "" {
		return verdict{why: why}
	}
	head := store.Head{
		Status: status, Vary: vary, Tags: tags(h), Sent: sent, Received: received,
		Age:     initialAge(h, sent, received),
		NoCache: c.noCache,
		NoStale: c.noCache || c.mustRevalidate || c.proxyRevalidate || c.sMaxAge != never,
	}
	head.Lifetime, head.Implicit = lifetime(c, policy, status, h, received)
	if !c.noCache && !c.mustRevalidate && !c.proxyRevalidate {
		// s-maxage alone does not forbid these: who states both means both (RFC 5861 §3, §4).
		head.Revalidate = stated(c.whileRevalidate, policy.StaleWhileRevalidate)
		head.IfError = stated(c.ifError, policy.StaleIfError)
	}
	if why := pointless(&head, h); why != "" {
		return verdict{why: why}
	}
	if why := withheld(v, c, &head); why != "" {
		return verdict{why: why}
	}
	return verdict{store: true, head: head, strip: c.strip}
}

// forbidden finds what forbids storing the response at all.
func forbidden(v *View, c responseControl, status int, h http.Header, varyKnown bool) Reason {
	switch {
	case v.Method != http.MethodGet:
		return RequestHead
	case c.understand && !understood(status):
		return MustUnderstand
	case c.noStore && !c.understand: // RFC 9111 §5.2.2.3: understood, must-understand overrides no-store
		return NoStore
	case c.private:
		return Private
	case status == http.StatusPartialContent:
		return Partial
	case status < 200 || status > 599 || status == http.StatusNotModified:
		return Status
	case len(h["Set-Cookie"]) > 0 && !slices.Contains(c.strip, "Set-Cookie"):
		return SetCookie
	case !varyKnown:
		return VaryStar
	}
	return ""
}

// pointless finds why a response that may be stored would never be used: it is not fresh and cannot be
// validated or stand in.
func pointless(head *store.Head, h http.Header) Reason {
	unusable := head.Lifetime == 0 || head.NoCache
	standsIn := !head.Implicit && head.Revalidate+head.IfError > 0
	head.Implicit = head.Implicit || head.NoCache || head.Lifetime == 0 && head.Revalidate == 0
	switch {
	case unusable && !standsIn && (!validatable(h) || failing(head.Status)): // a failure is not worth asking after
		return NoLifetime
	case head.Lifetime == 0 && head.Implicit && !explicit(h):
		return NoLifetime
	}
	return ""
}

// withheld finds why a response that others might have is kept from them for its request's sake. It comes last, so
// that any other reason is the response's own.
func withheld(v *View, c responseControl, head *store.Head) Reason {
	switch {
	case v.ask.noStore:
		return RequestNoStore
	case len(v.Header["Authorization"]) > 0 && !c.public && !c.mustRevalidate && c.sMaxAge == never:
		return Authorization // RFC 9111 §3.5
	case head.Implicit && hasCookie(v.Header):
		return Cookie // its lifetime is assumed, or there is none
	}
	return ""
}

func validatable(h http.Header) bool { return only(h, "Etag") != "" || only(h, "Last-Modified") != "" }

// explicit reports whether the origin spoke of caching at all.
func explicit(h http.Header) bool {
	return len(h["Cache-Control"])+len(h["Cdn-Cache-Control"])+len(h["Expires"]) > 0
}

// lifetime is how long the response is fresh (RFC 9111 §4.2.1), and whether that is not the origin's word.
func lifetime(c responseControl, policy config.Cache, status int, h http.Header, received time.Time) (d time.Duration, implicit bool) {
	switch {
	case c.sMaxAge != never:
		return c.sMaxAge, false
	case c.maxAge != never:
		return c.maxAge, false
	case !c.targeted && len(h["Expires"]) > 0:
		return untilExpires(h, received), false
	case c.noCache:
		return 0, false
	case policy.TTL > 0 && lasting(status):
		return policy.TTL, false
	case heuristic(status) || c.public:
		return assumed(h, received), true
	}
	return 0, true
}

// untilExpires is Expires less Date. A date that cannot be read is in the past (RFC 9111 §5.3).
func untilExpires(h http.Header, received time.Time) time.Duration {
	expires, ok := dateIn(h, "Expires")
	if !ok || len(h["Expires"]) > 1 {
		return 0
	}
	return max(0, expires.Sub(dateOf(h, received)))
}

func assumed(h http.Header, received time.Time) time.Duration {
	modified, ok := dateIn(h, "Last-Modified")
	if !ok {
		return 0
	}
	return min(max(0, dateOf(h, received).Sub(modified)/10), maxHeuristic)
}

func dateOf(h http.Header, received time.Time) time.Time {
	if date, ok := dateIn(h, "Date"); ok {
		return date
	}
	return received
}

// dateIn reads a field that is an HTTP date.
func dateIn(h http.Header, name string) (time.Time, bool) {
	s := only(h, name)
	if s == "" {
		return time.Time{}, false // http.ParseTime would say so in three allocations
	}
	t, err := http.ParseTime(s)
	return t, err == nil
}

// initialAge is how old the response was when it came (RFC 9111 §4.2.3).
func initialAge(h http.Header, sent, received time.Time) time.Duration {
	corrected := ageValue(h) + received.Sub(sent)
	if date, ok := dateIn(h, "Date"); ok {
		// Date has no fractions of a second; against our clock's it would make everything half a second old.
		return max(corrected, received.Truncate(time.Second).Sub(date))
	}
	return corrected
}

// ageValue reads Age (RFC 9111 §5.1): "a cache encountering a message with a list-based Age field value SHOULD
// use the first member of the field value, discarding subsequent ones", and one that "is invalid (e.g., it
// contains something other than a non-negative integer)" it "SHOULD ignore". Date still tells the response's age.
func ageValue(h http.Header) time.Duration {
	first, _, _ := strings.Cut(only(h, "Age"), ",") // lines are one list (RFC 9110 §5.3)
	return delta(strings.TrimRight(first, " \t"))
}

func stated(by time.Duration, otherwise time.Duration) time.Duration {
	if by != never {
		return by
	}
	return otherwise
}

// understood lists the statuses whose caching rules this cache implements, for must-understand.
func understood(status int) bool {
	switch status {
	case 302, 303, 307, 421, 451:
		return true
	}
	return heuristic(status)
}

// heuristic lists the statuses that may be reused without a stated lifetime (RFC 9110 §15.1), less 206.
func heuristic(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// lasting lists the statuses that take the policy's TTL: a year for a patch is no year for its 404.
func lasting(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308:
		return true
	}
	return false
}

// tags are what a response says it can be purged by.
func tags(h http.Header) []string {
	var found []string
	for _, line := range h["Surrogate-Key"] {
		found = append(found, strings.Fields(line)...)
	}
	for _, name := range []string{"Cache-Tag", "Xkey"} {
		for _, line := range h[name] {
			found = append(found, strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ' ' })...)
		}
	}
	return found[:min(len(found), maxTags)]
}
