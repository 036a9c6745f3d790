package cache_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache"
)

// respond answers every request with a status, header lines and a body that counts the requests.
func respond(code int, lines ...string) http.HandlerFunc {
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		n++
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			if name == "Date" {
				w.Header().Del(name)
			}
			w.Header().Add(name, expand(value))
		}
		w.WriteHeader(code)
		if code != 204 {
			fmt.Fprint(w, n)
		}
	}
}

// expand makes a date of `+3600` or `-60`.
func expand(value string) string {
	var seconds int
	if len(value) > 1 && (value[0] == '+' || value[0] == '-') {
		if n, _ := fmt.Sscanf(value, "%d", &seconds); n == 1 {
			return time.Now().UTC().Add(time.Duration(seconds) * time.Second).Format(http.TimeFormat)
		}
	}
	return value
}

// Whether a second request is answered from the store, and why not.
func TestStorability(t *testing.T) {
	type row struct {
		name     string
		code     int      // default 200
		response []string // header lines
		request  []string // of both requests
		policy   config.Cache
		reason   cache.Reason // of the second answer; "" is fresh
	}
	const day = "-86400"
	for _, c := range []row{
		{name: "max-age", response: []string{"Cache-Control: max-age=60"}},
		{name: "s-maxage over max-age", response: []string{"Cache-Control: max-age=0, s-maxage=60"}},
		{name: "short s-maxage over max-age", response: []string{"Cache-Control: max-age=60, s-maxage=0"}, reason: cache.NoLifetime},
		{name: "upper case", response: []string{"Cache-Control: MAX-AGE=60"}},
		{name: "quoted", response: []string{`Cache-Control: max-age="60"`}},
		{name: "beyond 2^31", response: []string{"Cache-Control: max-age=99999999999"}},
		{name: "no number", response: []string{"Cache-Control: max-age=6x"}, reason: cache.NoLifetime},
		{name: "negative", response: []string{"Cache-Control: max-age=-60"}, reason: cache.NoLifetime},
		{name: "contradiction", response: []string{"Cache-Control: max-age=60, max-age=0"}, reason: cache.NoLifetime},
		{name: "directive in quotes", response: []string{`Cache-Control: ext="no-store, private", max-age=60`}},
		{name: "two lines", response: []string{"Cache-Control: ext", "Cache-Control: max-age=60"}},
		{name: "Expires", response: []string{"Expires: +60"}},
		{name: "Expires past", response: []string{"Expires: -60"}, reason: cache.NoLifetime},
		{name: "Expires invalid", response: []string{"Expires: 0"}, reason: cache.NoLifetime},
		{name: "max-age over Expires", response: []string{"Cache-Control: max-age=60", "Expires: -60"}},
		{name: "Age beyond", response: []string{"Cache-Control: max-age=60", "Age: 61"}, reason: cache.Expired},
		{name: "Age list", response: []string{"Cache-Control: max-age=60", "Age: 0, 100"}},
		{name: "Age list, old first", response: []string{"Cache-Control: max-age=60", "Age: 100 ,0"}, reason: cache.Expired},
		{name: "Age lines", response: []string{"Cache-Control: max-age=60", "Age: 0", "Age: 100"}},
		{name: "Age lines, old first", response: []string{"Cache-Control: max-age=60", "Age: 100", "Age: 0"}, reason: cache.Expired},
		{name: "Age beyond 2^31", response: []string{"Cache-Control: max-age=60", "Age: 99999999999999999999"}, reason: cache.Expired},
		{name: "Age no number", response: []string{"Cache-Control: max-age=60", "Age: x"}},
		{name: "Age negative", response: []string{"Cache-Control: max-age=60", "Age: -100"}},
		{name: "Age no number, Date past", response: []string{"Cache-Control: max-age=60", "Age: x", "Date: -100"}, reason: cache.Expired},
		{name: "Date past", response: []string{"Cache-Control: max-age=60", "Date: -100"}, reason: cache.Expired},

		{name: "CDN over Cache-Control", response: []string{"CDN-Cache-Control: max-age=60", "Cache-Control: no-store"}},
		{name: "CDN no-store", response: []string{"CDN-Cache-Control: no-store", "Cache-Control: max-age=60"}, reason: cache.NoStore},
		{name: "CDN private", response: []string{"CDN-Cache-Control: private", "Cache-Control: max-age=60"}, reason: cache.Private},
		{name: "CDN no-cache", response: []string{"CDN-Cache-Control: no-cache", "Cache-Control: max-age=60", "Expires: +60"}, reason: cache.NoLifetime},
		{name: "CDN makes Expires moot", response: []string{"CDN-Cache-Control: max-age=60", "Expires: -60"}},
		{name: "CDN does not parse", response: []string{"CDN-Cache-Control: max-age=60, &&&", "Cache-Control: no-store"}, reason: cache.NoStore},
		{name: "CDN wrong type", response: []string{`CDN-Cache-Control: max-age="60"`, "Cache-Control: no-store"}, reason: cache.NoStore},
		{name: "CDN empty", response: []string{"CDN-Cache-Control: ", "Cache-Control: max-age=60"}},

		{name: "no-store", response: []string{"Cache-Control: no-store, max-age=60"}, reason: cache.NoStore},
		{name: "private", response: []string{"Cache-Control: private, max-age=60"}, reason: cache.Private},
		{name: "private field", response: []string{`Cache-Control: private="X-User", max-age=60`, "X-User: me"}},
		{name: "no-cache", response: []string{"Cache-Control: no-cache", `ETag: "a"`}, reason: cache.ResponseNoCache},
		{name: "no-cache without validator", response: []string{"Cache-Control: no-cache"}, reason: cache.NoLifetime},
		{name: "must-understand, understood", response: []string{"Cache-Control: no-store, must-understand, max-age=60"}},
		{name: "must-understand, not understood", code: 299, response: []string{"Cache-Control: must-understand, max-age=60"}, reason: cache.MustUnderstand},
		{name: "Set-Cookie", response: []string{"Cache-Control: max-age=60", "Set-Cookie: a=b"}, reason: cache.SetCookie},
		{name: "Set-Cookie told", response: []string{`Cache-Control: max-age=60, no-cache="Set-Cookie"`, "Set-Cookie: a=b"}},
		{name: "Authorization", response: []string{"Cache-Control: max-age=60"}, request: []string{"Authorization", "x"}, reason: cache.Authorization},
		{name: "Authorization public", response: []string{"Cache-Control: max-age=60, public"}, request: []string{"Authorization", "x"}},
		{name: "Authorization s-maxage", response: []string{"Cache-Control: s-maxage=60"}, request: []string{"Authorization", "x"}},
		{name: "Authorization must-revalidate", response: []string{"Cache-Control: max-age=60, must-revalidate"}, request: []string{"Authorization", "x"}},
		{name: "Authorization policy", policy: config.Cache{TTL: time.Minute}, request: []string{"Authorization", "x"}, reason: cache.Authorization},
		{name: "Vary star", response: []string{"Cache-Control: max-age=60", "Vary: Accept, *"}, reason: cache.VaryStar},
		{name: "Cookie", response: []string{"Cache-Control: max-age=60"}, request: []string{"Cookie", "a=b"}},

		{name: "nothing stated", reason: cache.NoLifetime},
		{name: "policy", policy: config.Cache{TTL: time.Minute}},
		{name: "policy does not override", policy: config.Cache{TTL: time.Minute}, response: []string{"Cache-Control: no-store"}, reason: cache.NoStore},
		{name: "policy and max-age=0", policy: config.Cache{TTL: time.Minute}, response: []string{"Cache-Control: max-age=0"}, reason: cache.NoLifetime},
		{name: "policy not for 404", code: 404, policy: config.Cache{TTL: time.Minute}, reason: cache.NoLifetime},
		{name: "heuristic", response: []string{"Last-Modified: " + day}},
		{name: "heuristic with Cookie", response: []string{"Last-Modified: " + day}, request: []string{"Cookie", "a=b"}, reason: cache.Cookie},
		{name: "heuristic 302", code: 302, response: []string{"Last-Modified: " + day}, reason: cache.NoLifetime},
		{name: "explicit 302", code: 302, response: []string{"Cache-Control: max-age=60"}},
		{name: "explicit 404", code: 404, response: []string{"Cache-Control: max-age=60"}},
		{name: "explicit 599", code: 599, response: []string{"Cache-Control: max-age=60"}},
		{name: "204", code: 204, response: []string{"Cache-Control: max-age=60"}},
		{name: "206", code: 206, response: []string{"Cache-Control: max-age=60", "Content-Range: bytes 0-0/9"}, reason: cache.Partial},

		{name: "request no-store", response: []string{"Cache-Control: max-age=60"}, request: []string{"Cache-Control", "no-store"}, reason: cache.RequestNoStore},
		{name: "request no-cache", response: []string{"Cache-Control: max-age=60"}, request: []string{"Cache-Control", "no-cache"}, reason: cache.RequestNoCache},
		{name: "request max-age", response: []string{"Cache-Control: max-age=60", "Age: 30"}, request: []string{"Cache-Control", "max-age=20"}, reason: cache.RequestMaxAge},
		{name: "request max-age enough", response: []string{"Cache-Control: max-age=60", "Age: 30"}, request: []string{"Cache-Control", "max-age=40"}},
		{name: "request min-fresh", response: []string{"Cache-Control: max-age=60"}, request: []string{"Cache-Control", "min-fresh=70"}, reason: cache.RequestMinFresh},
		{name: "request max-stale", response: []string{"Cache-Control: max-age=60", "Age: 70"}, request: []string{"Cache-Control", "max-stale=20"}, reason: cache.MaxStale},
		{name: "request max-stale too stale", response: []string{"Cache-Control: max-age=60", "Age: 90"}, request: []string{"Cache-Control", "max-stale=20"}, reason: cache.Expired},
		{name: "request max-stale forbidden", response: []string{"Cache-Control: max-age=60, must-revalidate", "Age: 70"}, request: []string{"Cache-Control", "max-stale"}, reason: cache.Expired},
		{name: "off", policy: config.Cache{Off: true}, response: []string{"Cache-Control: max-age=60"}, reason: cache.Off},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.code == 0 {
				c.code = 200
			}
			if c.reason == "" {
				c.reason = cache.Fresh
			}
			e := newEdge(t, setup{policy: c.policy, origin: respond(c.code, c.response...)})
			first := e.get("/a", c.request...)
			<-e.outcome
			second := e.get("/a", c.request...)
			out := <-e.outcome
			if first.err != nil || second.err != nil {
				t.Fatal(first.err, second.err)
			}
			if out.Reason != c.reason {
				t.Errorf("second answer: %s %s (%s), want reason %s", out.Status, out.Reason, second.status(), c.reason)
			}
			same := c.reason == cache.Fresh || c.reason == cache.MaxStale
			if asked := e.asked.Load(); same != (asked == 1) {
				t.Errorf("origin asked %d times", asked)
			}
		})
	}
}
