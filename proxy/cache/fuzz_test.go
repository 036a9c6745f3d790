package cache_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

// fuzzed serves one response with the given header twice and returns both answers.
func fuzzed(header http.Header, request http.Header) (first, second *httptest.ResponseRecorder, out cache.Outcome) {
	c := cache.New(cache.Options{Store: store.New(1<<20, nil)})
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	route := cache.Route{Scheme: "http", Fetch: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, ContentLength: 10, Body: io.NopCloser(strings.NewReader("0123456789")), Header: header.Clone()}, nil
	})}
	ask := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "http://x.example/", nil)
		r.Header = request.Clone()
		w := httptest.NewRecorder()
		out = c.Serve(w, r, route)
		return w
	}
	return ask(), ask(), out
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=60", `private="a, b", max-age=60`, `no-cache="`, `max-age="6\0"`, "s-maxage=1,,no-store", "max-age=99999999999999999999",
		"max-age =60", "=", ",=,", `ext="no-store`, "must-understand,no-store"} {
		f.Add(s, s, s)
	}
	f.Fuzz(func(t *testing.T, control, cdn, request string) {
		_, _, out := fuzzed(http.Header{"Cache-Control": {control}, "Cdn-Cache-Control": {cdn}}, http.Header{"Cache-Control": {request}})
		plain := !strings.ContainsAny(control, "\"=\\") && cdn == ""
		for d := range strings.SplitSeq(strings.ToLower(control), ",") {
			if d = strings.Trim(d, " \t"); plain && (d == "no-store" || d == "private") && !strings.Contains(strings.ToLower(control), "must-understand") && out.Status == "hit" {
				t.Errorf("%q was stored", control)
			}
		}
	})
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=-1", "bytes=5-4", "bytes=99999999999999999999-1", "bytes= 1-2", "bytes=1-2,4-5", "bytes=--1", "=", "bytes=+1-2"} {
		f.Add(s, `"a"`)
	}
	f.Fuzz(func(t *testing.T, ask, ifRange string) {
		_, second, _ := fuzzed(http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`"a"`}}, http.Header{"Range": {ask}, "If-Range": {ifRange}})
		body := second.Body.String()
		switch second.Code {
		case 200:
			if body != "0123456789" {
				t.Errorf("%q: 200 with %q", ask, body)
			}
		case 206:
			if body == "" || !strings.Contains("0123456789", body) || second.Header().Get("Content-Length") != strconv.Itoa(len(body)) {
				t.Errorf("%q: 206 with %q, %v", ask, body, second.Header())
			}
		case 416:
			if body != "" {
				t.Errorf("%q: 416 with %q", ask, body)
			}
		default:
			t.Errorf("%q: %d", ask, second.Code)
		}
	})
}

func FuzzVary(f *testing.F) {
	for _, s := range []string{"*", "a, *", "Accept,accept", ",,", "a b", "\x00", "Accept-Encoding"} {
		f.Add(s, "gzip", "gzip")
	}
	f.Fuzz(func(t *testing.T, vary, accept, value string) {
		_, _, out := fuzzed(http.Header{"Cache-Control": {"max-age=60"}, "Vary": {vary}}, http.Header{"Accept": {accept}, "A": {value}})
		for name := range strings.SplitSeq(vary, ",") {
			if strings.TrimSpace(name) == "*" && out.Status == "hit" {
				t.Errorf("Vary %q was reused", vary)
			}
		}
	})
}

func FuzzConditions(f *testing.F) {
	f.Add(`"a"`, "Mon, 01 Jan 2024 00:00:00 GMT", "1")
	f.Add(`W/"a,b", "c`, "0", "1, 2")
	f.Fuzz(func(t *testing.T, tags, date, age string) {
		_, second, _ := fuzzed(http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`"a"`}, "Age": {age}, "Expires": {date}, "Last-Modified": {date}},
			http.Header{"If-None-Match": {tags}, "If-Modified-Since": {date}})
		if second.Code != 200 && second.Code != 304 {
			t.Errorf("%d", second.Code)
		}
	})
}
