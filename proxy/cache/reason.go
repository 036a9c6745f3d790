package cache

// Reason is the one word for what became of a request, the same in the access log, the metric label and the
// detail of Cache-Status.
type Reason string

// Why a stored response could be used as it was.
const (
	Fresh                Reason = "fresh"
	MaxStale             Reason = "max-stale"              // stale, and the client said it would do
	StaleWhileRevalidate Reason = "stale-while-revalidate" // stale, and being validated behind the client's back
	StaleIfError         Reason = "stale-if-error"         // stale, and the origin fails
)

// Why a request went to the origin.
const (
	URIMiss         Reason = "uri-miss"
	VaryMiss        Reason = "vary-miss"
	Purged          Reason = "purged"
	SoftPurged      Reason = "soft-purged"
	Expired         Reason = "expired"
	ResponseNoCache Reason = "response-no-cache"
	RequestNoCache  Reason = "request-no-cache"
	RequestMaxAge   Reason = "request-max-age"
	RequestMinFresh Reason = "request-min-fresh"
)

// Why a response was not stored.
const (
	NoStore        Reason = "no-store"
	Private        Reason = "private"
	NoLifetime     Reason = "no-lifetime" // none stated, none allowed to be assumed, or over on arrival with nothing to validate by
	Authorization  Reason = "authorization"
	SetCookie      Reason = "set-cookie"
	VaryStar       Reason = "vary-star"
	MustUnderstand Reason = "must-understand"
	Status         Reason = "status"
	Partial        Reason = "partial"
	TooLarge       Reason = "too-large"
	NoRoom         Reason = "no-room"
	Cookie         Reason = "cookie" // a lifetime was assumed or is zero, and the request had a Cookie
	RequestNoStore Reason = "request-no-store"
	RequestHead    Reason = "head"
	Invalidated    Reason = "invalidated" // by a purge or an unsafe method while it was on its way
)

// Why the cache was not asked.
const (
	Off          Reason = "off"
	Method       Reason = "method"
	Upgrade      Reason = "upgrade"
	RequestBody  Reason = "request-body"
	Precondition Reason = "precondition" // If-Match and If-Unmodified-Since are the origin's to judge
)

// Why a request failed.
const (
	OnlyIfCached  Reason = "only-if-cached"
	OriginError   Reason = "origin-error"
	OriginTimeout Reason = "origin-timeout"
	Truncated     Reason = "truncated" // the origin ended the body early, or we had to
	ClientGone    Reason = "client-gone"
)

// Reasons lists them all.
func Reasons() []Reason {
	return []Reason{
		Fresh, MaxStale, StaleWhileRevalidate, StaleIfError,
		URIMiss, VaryMiss, Purged, SoftPurged, Expired, ResponseNoCache, RequestNoCache, RequestMaxAge, RequestMinFresh,
		NoStore, Private, NoLifetime, Authorization, SetCookie, VaryStar, MustUnderstand, Status, Partial, TooLarge,
		NoRoom, Cookie, RequestNoStore, RequestHead, Invalidated,
		Off, Method, Upgrade, RequestBody, Precondition,
		OnlyIfCached, OriginError, OriginTimeout, Truncated, ClientGone,
	}
}

// String is the word itself.
func (r Reason) String() string { return string(r) }

// forward is the registered word of RFC 9211 §2.2 for why a request went to the origin.
func (r Reason) forward() string {
	switch r {
	case Off, Upgrade, RequestBody, Precondition:
		return "bypass"
	case Method:
		return "method"
	case VaryMiss:
		return "vary-miss"
	case Expired, SoftPurged, ResponseNoCache:
		return "stale"
	case RequestNoCache, RequestMaxAge, RequestMinFresh:
		return "request"
	case Cookie, Purged:
		return "miss"
	default:
		return "uri-miss"
	}
}
