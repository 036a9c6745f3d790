package cache_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
)

func TestFieldsNamedPrivateAreNotStored(t *testing.T) {
	e := newEdge(t, setup{origin: respond(200, `Cache-Control: max-age=60, private="X-User, X-Other"`, "X-User: me", "X-All: you",
		"Connection: X-Hop", "X-Hop: here")})
	first := e.get("/a")
	if first.Header.Get("X-User") != "me" {
		t.Errorf("first client lost X-User: %v", first.Header)
	}
	second := e.get("/a")
	second.want(t, 200, "1", "hit")
	if second.Header.Get("X-User") != "" || second.Header.Get("X-All") != "you" || second.Header.Get("X-Hop") != "" {
		t.Errorf("stored header %v", second.Header)
	}
}

func TestAgeAndDate(t *testing.T) {
	e := newEdge(t, setup{origin: respond(200, "Cache-Control: max-age=60", "Age: 10")})
	first := e.get("/a")
	if got := first.Header.Get("Age"); got != "10" {
		t.Errorf("first Age %q, want the origin's 10", got)
	}
	e.later(20 * time.Second)
	second := e.get("/a")
	second.want(t, 200, "1", "nearzone; hit; ttl=")
	if got := second.Header.Get("Age"); got != "30" && got != "31" {
		t.Errorf("Age %q, want 30", got)
	}
	if a, b := first.Header.Get("Date"), second.Header.Get("Date"); a == "" || a != b {
		t.Errorf("Date %q and %q, want it kept", a, b)
	}
}

func TestCacheStatusKeepsTheOrigins(t *testing.T) {
	e := newEdge(t, setup{origin: respond(200, "Cache-Control: max-age=60", "Cache-Status: shield; hit")})
	for range 2 {
		a := e.get("/a")
		if got := a.Header["Cache-Status"]; len(got) != 2 || got[0] != "shield; hit" {
			t.Errorf("Cache-Status %q", got)
		}
	}
}

func TestOnlyIfCached(t *testing.T) {
	e := newEdge(t, setup{origin: respond(200, "Cache-Control: max-age=60")})
	e.get("/a", "Cache-Control", "only-if-cached").want(t, 504, "Gateway Timeout\n", "detail=only-if-cached")
	e.wantAsked(0)
	e.get("/a")
	e.get("/a", "Cache-Control", "only-if-cached").want(t, 200, "1", "hit")
}

func TestKey(t *testing.T) {
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, r.Host, " ", r.RequestURI)
	}})
	for _, c := range [][2]string{
		{"/a", "x.example"}, {"/a?", "x.example"}, {"/a?b", "x.example"}, {"/a?b=", "x.example"}, {"/A", "x.example"},
		{"/a%2Fb", "x.example"}, {"/a/b", "x.example"}, {"/a%2fb", "x.example"}, {"/a//b", "x.example"}, {"/a;b", "x.example"},
		{"/a", "y.example"}, {"/a", "x.example:81"},
	} {
		e.get(c[0], "Host", c[1]).want(t, 200, c[1]+" "+c[0], "uri-miss")
		e.get(c[0], "Host", c[1]).want(t, 200, c[1]+" "+c[0], "hit")
	}
	e.get("/a", "Host", "X.Example").want(t, 200, "x.example /a", "hit")
}

func TestVary(t *testing.T) {
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Add("Vary", "accept-language, X-A")
		w.Header().Add("Vary", "X-B")
		fmt.Fprintf(w, "%v%v%v", r.Header["Accept-Language"], r.Header["X-A"], r.Header["X-B"])
	}})
	e.get("/a", "Accept-Language", "de", "X-A", "1").want(t, 200, "[de][1][]", "uri-miss")
	e.get("/a", "Accept-Language", "en", "X-A", "1").want(t, 200, "[en][1][]", "vary-miss")
	e.get("/a", "Accept-Language", "de", "X-A", "1").want(t, 200, "[de][1][]", "hit")
	e.get("/a", "Accept-Language", "en", "X-A", "1").want(t, 200, "[en][1][]", "hit")
	e.get("/a", "Accept-Language", "de", "X-A", "1", "X-B", "").want(t, 200, "[de][1][]", "vary-miss")
	e.get("/a", "Accept-Language", "de,en", "X-A", "1").want(t, 200, "[de,en][1][]", "vary-miss")
	e.get("/a", "Accept-Language", "de ,  en", "X-A", "1").want(t, 200, "[de,en][1][]", "hit")
	for i := range 100 {
		e.get("/a", "X-A", fmt.Sprint("abuse", i))
	}
	if n := e.cache.Stats().Objects; n > 32 {
		t.Errorf("%d variants stored", n)
	}
}

func TestRanges(t *testing.T) {
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "0123456789")
	}})
	for _, c := range []struct {
		ask, ifRange string
		code         int
		body, cr     string
	}{
		{"bytes=0-3", "", 206, "0123", "bytes 0-3/10"}, // a miss: the whole is fetched
		{"bytes=0-3", "", 206, "0123", "bytes 0-3/10"},
		{"bytes=4-", "", 206, "456789", "bytes 4-9/10"},
		{"bytes=-2", "", 206, "89", "bytes 8-9/10"},
		{"bytes=-20", "", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=8-100", "", 206, "89", "bytes 8-9/10"},
		{"bytes=10-", "", 416, "", "bytes */10"},
		{"bytes=-0", "", 416, "", "bytes */10"},
		{"bytes=99999999999999999999-", "", 416, "", "bytes */10"},
		{"bytes=3-1", "", 200, "0123456789", ""},
		{"bytes=0-1,3-4", "", 200, "0123456789", ""},
		{"lines=0-1", "", 200, "0123456789", ""},
		{"bytes=a-b", "", 200, "0123456789", ""},
		{"bytes=0-1", `"v1"`, 206, "01", "bytes 0-1/10"},
		{"bytes=0-1", `"v2"`, 200, "0123456789", ""},
		{"bytes=0-1", `W/"v1"`, 200, "0123456789", ""},
		{"bytes=0-1", "Mon, 01 Jan 2024 00:00:00 GMT", 206, "01", "bytes 0-1/10"},
		{"bytes=0-1", "Tue, 02 Jan 2024 00:00:00 GMT", 200, "0123456789", ""},
	} {
		header := []string{"Range", c.ask}
		if c.ifRange != "" {
			header = append(header, "If-Range", c.ifRange)
		}
		a := e.get("/a", header...)
		a.want(t, c.code, c.body)
		if got := a.Header.Get("Content-Range"); got != c.cr {
			t.Errorf("%q: Content-Range %q, want %q", c.ask, got, c.cr)
		}
	}
	e.wantAsked(1)
}

func TestRangeOfSomethingLargeIsTheOriginsToCut(t *testing.T) {
	e := newEdge(t, setup{policy: config.Cache{MaxObject: 1 << 20}, origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(strings.Repeat("z", 4<<20)))
	}})
	for range 2 {
		a := e.get("/a", "Range", "bytes=5-7")
		a.want(t, 206, "zzz", "detail=partial")
	}
	e.wantAsked(3) // the whole once, to learn that it is large
}

func TestClientConditions(t *testing.T) {
	const modified = "Mon, 01 Jan 2024 00:00:00 GMT"
	e := newEdge(t, setup{origin: respond(200, "Cache-Control: max-age=60", `ETag: W/"a,b"`, "Last-Modified: "+modified, "Content-Type: text/x")})
	for _, c := range []struct {
		header []string
		code   int
	}{
		{[]string{"If-None-Match", `"x"`}, 200},
		{[]string{"If-None-Match", `W/"a,b"`}, 304},
		{[]string{"If-None-Match", `"x", "a,b" , "y"`}, 304},
		{[]string{"If-None-Match", `*`}, 304},
		{[]string{"If-Modified-Since", modified}, 304},
		{[]string{"If-Modified-Since", "Sun, 31 Dec 2023 23:59:59 GMT"}, 200},
		{[]string{"If-Modified-Since", "Monday, 01-Jan-24 00:00:00 GMT"}, 304},
		{[]string{"If-Modified-Since", "yesterday"}, 200},
		{[]string{"If-None-Match", `"x"`, "If-Modified-Since", modified}, 200},
	} {
		a := e.get("/a", c.header...)
		if a.StatusCode != c.code {
			t.Errorf("%q: %d, want %d", c.header, a.StatusCode, c.code)
		}
		if a.StatusCode == 304 && (a.Header.Get("ETag") == "" || a.Header.Get("Content-Type") != "") {
			t.Errorf("%q: header of the 304: %v", c.header, a.Header)
		}
	}
	e.wantAsked(1)
}

func TestValidation(t *testing.T) {
	var asked []string
	etag := `"v1"`
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("If-None-Match"))
		w.Header().Set("Cache-Control", "max-age=10")
		w.Header().Set("ETag", etag)
		w.Header().Set("X-Count", fmt.Sprint(len(asked)))
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(304)
			return
		}
		fmt.Fprint(w, "body of ", etag)
	}})
	e.get("/a")
	e.later(11 * time.Second)
	a := e.get("/a")
	a.want(t, 200, `body of "v1"`, "fwd=stale; fwd-status=304")
	if got := a.Header.Get("X-Count"); got != "2" {
		t.Errorf("X-Count %q, want that of the 304", got)
	}
	a = e.get("/a")
	a.want(t, 200, `body of "v1"`, "hit")
	if got := a.Header.Get("X-Count"); got != "2" {
		t.Errorf("stored X-Count %q, want that of the 304", got)
	}
	e.later(11 * time.Second)
	etag = `"v2"`
	e.get("/a", "If-None-Match", `"v1"`).want(t, 200, `body of "v2"`, "fwd=stale")
	e.later(11 * time.Second)
	e.get("/a", "If-None-Match", `"v2"`).want(t, 304, "")
	if want := []string{"", `"v1"`, `"v1"`, `"v2"`}; fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("validators sent %q, want %q", asked, want)
	}
}

func TestNotModifiedOfSomethingElse(t *testing.T) {
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=10")
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("ETag", `"other"`)
			w.WriteHeader(304)
			return
		}
		w.Header().Set("ETag", `"v1"`)
		fmt.Fprint(w, "whole")
	}})
	e.get("/a")
	e.later(11 * time.Second)
	e.get("/a").want(t, 200, "whole", "fwd=stale")
	e.wantAsked(3)
}

func TestHead(t *testing.T) {
	length := "5"
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", length)
		w.Header().Set("X-Method", r.Method)
		if r.Method == "GET" {
			fmt.Fprint(w, "01234")
		}
	}})
	a := e.do(e.request("HEAD", "/a"))
	a.want(t, 200, "", "uri-miss")
	e.get("/a").want(t, 200, "01234", "uri-miss")
	a = e.do(e.request("HEAD", "/a"))
	a.want(t, 200, "", "hit")
	if a.ContentLength != 5 || a.Header.Get("X-Method") != "GET" {
		t.Errorf("length %d, method %s", a.ContentLength, a.Header.Get("X-Method"))
	}
	e.later(61 * time.Second)
	e.do(e.request("HEAD", "/a")).want(t, 200, "", "fwd=stale")
	e.get("/a").want(t, 200, "01234", "hit") // freshened by the HEAD
	e.later(61 * time.Second)
	length = "6"
	e.do(e.request("HEAD", "/a"))
	if n := e.cache.Stats().Objects; n != 0 {
		t.Errorf("%d objects after a HEAD that tells of another one", n)
	}
}

func TestUnsafeMethodsInvalidate(t *testing.T) {
	code := 200
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.Method != "GET" {
			w.Header().Set("Location", "/b?c")
			w.Header().Set("Content-Location", "http://elsewhere.example/d")
			w.WriteHeader(code)
		}
	}})
	for _, c := range []struct {
		method string
		code   int
		gone   bool
	}{{"POST", 201, true}, {"DELETE", 204, true}, {"PUT", 302, true}, {"POST", 500, false}, {"OPTIONS", 200, false}, {"FOO", 200, true}} {
		code = c.code
		urls := []string{"/a", "/b?c"}
		for _, u := range urls {
			e.get(u)
			e.get(u).want(t, 200, "", "hit")
		}
		e.get("/d", "Host", "elsewhere.example")
		e.do(e.request(c.method, "/a")).want(t, c.code, "", "fwd=method")
		for _, u := range urls {
			if hit := strings.Contains(e.get(u).status(), "hit"); hit == c.gone {
				t.Errorf("%s %d: %s a hit afterwards: %v", c.method, c.code, u, hit)
			}
		}
		e.get("/d", "Host", "elsewhere.example").want(t, 200, "", "hit")
	}
}

func TestFatGetAndPreconditionsBypass(t *testing.T) {
	e := newEdge(t, setup{origin: respond(200, "Cache-Control: max-age=60")})
	r := e.request("GET", "/a")
	r.Body, r.ContentLength = http.NoBody, 0
	e.do(r).want(t, 200, "1", "stored")
	fat, _ := http.NewRequest("GET", e.front.URL+"/a", strings.NewReader("fat"))
	e.do(fat).want(t, 200, "2", "fwd=bypass", "detail=request-body")
	e.get("/a", "If-Match", `"x"`).want(t, 200, "3", "detail=precondition")
	e.get("/a").want(t, 200, "1", "hit")
}
