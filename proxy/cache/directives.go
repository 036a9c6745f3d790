package cache

import (
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// never is a duration nobody stated.
const never time.Duration = -1

// maxDelta is where delta-seconds end (RFC 9111 §1.2.2).
const maxDelta = 1<<31 - 1

// responseControl is what a response said about its storage, by CDN-Cache-Control or Cache-Control.
type responseControl struct {
	targeted                                    bool // said to us: Expires and Cache-Control do not count (RFC 9213 §2.2)
	noStore, noCache, private, public           bool
	mustRevalidate, proxyRevalidate, understand bool
	strip                                       []string // fields named by no-cache="…" and private="…"
	maxAge, sMaxAge, whileRevalidate, ifError   time.Duration
}

// requestControl is what a request asked of us.
type requestControl struct {
	noCache, noStore, onlyIfCached bool
	maxAge, minFresh, maxStale     time.Duration
}

func parseResponseControl(h http.Header) responseControl {
	if lines := h["Cdn-Cache-Control"]; len(lines) > 0 {
		if c, ok := parseTargeted(lines); ok {
			return c
		}
	}
	c := newResponseControl()
	eachDirective(h["Cache-Control"], c.set)
	return c
}

func newResponseControl() responseControl {
	return responseControl{maxAge: never, sMaxAge: never, whileRevalidate: never, ifError: never}
}

func (c *responseControl) set(name, value string, has bool) {
	switch name {
	case "no-store":
		c.noStore = true
	case "no-cache":
		c.qualified(&c.noCache, value, has)
	case "private":
		c.qualified(&c.private, value, has)
	case "public":
		c.public = true
	case "must-revalidate":
		c.mustRevalidate = true
	case "proxy-revalidate":
		c.proxyRevalidate = true
	case "must-understand":
		c.understand = true
	case "max-age":
		lowest(&c.maxAge, delta(value))
	case "s-maxage":
		lowest(&c.sMaxAge, delta(value))
	case "stale-while-revalidate":
		lowest(&c.whileRevalidate, delta(value))
	case "stale-if-error":
		lowest(&c.ifError, delta(value))
	}
}

// qualified takes no-cache and private: with field names they concern those fields alone (RFC 9111 §5.2.2.4, §5.2.2.7).
func (c *responseControl) qualified(whole *bool, value string, has bool) {
	fields := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	if !has || len(fields) == 0 {
		*whole = true
		return
	}
	for _, f := range fields {
		c.strip = append(c.strip, http.CanonicalHeaderKey(f))
	}
}

// parseTargeted reads CDN-Cache-Control, a structured dictionary. One that does not parse, is empty, or has a
// directive of the wrong type is as if it were not there (RFC 9213 §2.1).
func parseTargeted(lines []string) (responseControl, bool) {
	c := newResponseControl()
	c.targeted = true
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(dict.Names()) == 0 {
		return c, false
	}
	for _, name := range dict.Names() {
		member, _ := dict.Get(name)
		item, isItem := member.(httpsfv.Item)
		if !isItem || !c.setTyped(name, item.Value) {
			return c, false
		}
	}
	return c, true
}

// setTyped takes a directive whose value has a type, and reports whether it is the right one. Directives we do
// not know may be anything.
func (c *responseControl) setTyped(name string, value any) bool {
	switch name {
	case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
		n, ok := value.(int64)
		if !ok || n < 0 {
			return false
		}
		c.set(name, "", false)
		*c.duration(name) = time.Duration(min(n, maxDelta)) * time.Second
		return true
	}
	switch v := value.(type) {
	case bool:
		if v {
			c.set(name, "", false)
		}
	case string:
		c.set(name, v, true)
	case httpsfv.Token:
		c.set(name, string(v), true)
	}
	return true
}

func (c *responseControl) duration(name string) *time.Duration {
	switch name {
	case "max-age":
		return &c.maxAge
	case "s-maxage":
		return &c.sMaxAge
	case "stale-while-revalidate":
		return &c.whileRevalidate
	default:
		return &c.ifError
	}
}

func parseRequestControl(lines []string) requestControl {
	c := requestControl{maxAge: never, minFresh: never, maxStale: never}
	if len(lines) == 0 {
		return c
	}
	eachDirective(lines, func(name, value string, has bool) {
		switch name {
		case "no-cache":
			c.noCache = true
		case "no-store":
			c.noStore = true
		case "only-if-cached":
			c.onlyIfCached = true
		case "max-age":
			c.maxAge = delta(value)
		case "min-fresh":
			c.minFresh = delta(value)
		case "max-stale":
			c.maxStale = delta(value)
			if !has {
				c.maxStale = maxDelta * time.Second // any staleness will do
			}
		}
	})
	return c
}

// lowest keeps the shorter of two statements: of contradictions, the one that is stale sooner (RFC 9111 §4.2.1).
func lowest(d *time.Duration, stated time.Duration) {
	if *d == never || stated < *d {
		*d = stated
	}
}

// delta reads delta-seconds. What is none is 0: a lifetime that cannot be read is over (RFC 9111 §4.2.1).
func delta(s string) time.Duration {
	if !digits(s) {
		return 0
	}
	n := 0
	for i := range len(s) {
		n = min(n*10+int(s[i]-'0'), maxDelta)
	}
	return time.Duration(n) * time.Second
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// eachDirective calls fn for each directive of Cache-Control lines, the name in lower case. A quoted value
// comes without its quotes; what is no token=value is skipped to the next comma.
func eachDirective(lines []string, fn func(name, value string, has bool)) {
	for _, line := range lines {
		for line != "" {
			var name, value string
			var has bool
			name, value, has, line = nextDirective(line)
			if name != "" {
				fn(strings.ToLower(name), value, has)
			}
		}
	}
}

func nextDirective(s string) (name, value string, has bool, rest string) {
	s = strings.TrimLeft(s, " \t,")
	end := strings.IndexAny(s, "=,")
	if end < 0 || s[end] == ',' {
		name, rest = cut(s, max(end, 0), end < 0)
		return strings.TrimRight(name, " \t"), "", false, rest
	}
	name, s = s[:end], s[end+1:]
	if strings.HasPrefix(s, `"`) {
		value, rest = quoted(s[1:])
		return name, value, true, rest
	}
	end = strings.IndexByte(s, ',')
	value, rest = cut(s, max(end, 0), end < 0)
	return name, strings.TrimRight(value, " \t"), true, rest
}

// cut splits s at a comma, or not at all when it is the last.
func cut(s string, comma int, last bool) (before, after string) {
	if last {
		return s, ""
	}
	return s[:comma], s[comma+1:]
}

// quoted reads a quoted-string whose first quote is gone, and skips to behind the next comma.
func quoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			if comma := strings.IndexByte(s[i:], ','); comma >= 0 {
				rest = s[i+comma+1:]
			}
			return b.String(), rest
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
