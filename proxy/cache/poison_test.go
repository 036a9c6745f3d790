package cache_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache"
)

// What an attacker asks first, and what a victim gets who asks for the page itself.
func TestPoison(t *testing.T) {
	page := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "page")
	}
	for _, c := range []struct {
		name   string
		origin http.HandlerFunc // what is no attack gets page from it
		attack func(e *edge) *http.Request
	}{
		{"oversized header", func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header.Get("X-Oversized")) > 8000 {
				w.Header().Set("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "X-Oversized", strings.Repeat("x", 9000)) }},

		{"meta characters", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Meta") != "" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "X-Meta", "\t'") }},

		{"method override", func(w http.ResponseWriter, r *http.Request) {
			for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
				if r.Header.Get(name) != "" {
					w.Header().Set("Cache-Control", "max-age=60")
					w.WriteHeader(http.StatusNotFound)
					return
				}
			}
			page(w, r)
		}, func(e *edge) *http.Request {
			for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method"} {
				e.get("/a", name, "POST")
			}
			return e.request("GET", "/a", "X-Method-Override", "POST")
		}},

		{"fat GET", func(w http.ResponseWriter, r *http.Request) {
			if body, _ := io.ReadAll(r.Body); len(body) > 0 {
				w.Header().Set("Cache-Control", "max-age=60")
				fmt.Fprintf(w, "page for %s", body)
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request {
			r, _ := http.NewRequest("GET", e.front.URL+"/a", struct{ io.Reader }{strings.NewReader("evil")}) // chunked
			e.do(r)
			r, _ = http.NewRequest("GET", e.front.URL+"/a", strings.NewReader("evil"))
			return r
		}},

		{"HEAD", page, func(e *edge) *http.Request { return e.request("HEAD", "/a") }},
		{"POST", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Content-Location", r.URL.Path)
				fmt.Fprint(w, "posted")
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("POST", "/a") }},
		{"lower-case method", func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "GET" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(http.StatusNotImplemented)
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("get", "/a") }},

		{"range", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Content-Range", "bytes 0-0/4")
				w.WriteHeader(http.StatusPartialContent)
				fmt.Fprint(w, "p")
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "Range", "bytes=0-0") }},
		{"unknown range unit", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "Range", "evil=0-1") }},
		{"condition", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != "" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(http.StatusNotModified)
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "If-None-Match", "*") }},
		{"precondition", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-Match") != "" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "If-Match", `"evil"`) }},

		{"Vary over white space within a value", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "Accept-Language, X-Quoted")
			if r.Header.Get("Accept-Language") == "d e" || r.Header.Get("X-Quoted") == `"a , b"` {
				w.Header().Set("Cache-Control", "max-age=60")
				io.WriteString(w, "what?")
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request {
			e.get("/a", "Accept-Language", "de", "X-Quoted", `"a , b"`)
			return e.request("GET", "/a", "Accept-Language", "d e", "X-Quoted", `"a,b"`)
		}},
		{"user's cookie", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Cookie") != "" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Set-Cookie", "session=evil")
				io.WriteString(w, "your page, evil")
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "Cookie", "session=evil") }},
		{"credentials", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				w.Header().Set("Cache-Control", "max-age=60")
				io.WriteString(w, "your page, evil")
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "Authorization", "Bearer evil") }},
		{"hop-by-hop", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "Cache-Control, Vary") // no way to make a cache forget no-store
			w.Header().Set("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
			if r.Header.Get("X-Who") != "" {
				w.Header().Set("Cache-Control", "no-store")
				io.WriteString(w, "your page, evil")
				return
			}
			page(w, r)
		}, func(e *edge) *http.Request { return e.request("GET", "/a", "X-Who", "evil") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, setup{origin: c.origin, policy: config.Cache{TTL: 0}})
			e.do(c.attack(e))
			victim := []string{"Accept-Language", "de", "X-Quoted", `"a,b"`}
			for range 2 {
				e.get("/a", victim...).want(t, 200, "page")
			}
			e.do(c.attack(e)) // once the page is stored it stays what it is
			e.get("/a", victim...).want(t, 200, "page")
		})
	}
}

// The policy's TTL is for pages, not for what an attacker got instead of one.
func TestPolicyStoresNoFailure(t *testing.T) {
	for _, code := range []int{400, 403, 404, 405, 413, 414, 431, 500, 501, 502, 503} {
		e := newEdge(t, setup{policy: config.Cache{TTL: 60e9}, origin: func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Evil") != "" {
				w.WriteHeader(code)
				return
			}
			io.WriteString(w, "page")
		}})
		e.get("/a", "X-Evil", "1")
		e.get("/a").want(t, 200, "page", "stored")
	}
}

// Whatever two servers might take for two URLs has two keys, and comes to the origin as it was.
func TestKeysAreNeverMixed(t *testing.T) {
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "%s %s", r.Host, r.RequestURI)
	}})
	var all []string
	for _, path := range []string{
		"/a", "/A", "/a/", "//a", "/a//", "/./a", "/a/.", "/b/../a", "/a/..", "/a%2f..%2fb", "/a%2F..%2Fb", "/a/..%2fb", "/a%2e", "/a.",
		"/%61", "/a;v=1", "/a;v=2", "/a;", "/a%3b", "/a%3Bv=1", "/a%3Fb", "/a?b", "/a?", "/a?b=1&c=2", "/a?c=2&b=1", "/a?b=1&amp;c=2", "/a?B=1",
		"/a?b=%61", "/a?b=a", "/a?b=+", "/a?b=%20", "/a%23b", "/a%00", "/a%0a", "/a%0d%0aX:1", `/a%5cb`, "/a.css", "/a/x.css", "/a;x.css", "/a%2fx.css",
		"/a%3fx.css", "/a%23x.css", "/a%09", "/a%20", "/a+", "/%c3%a9", "/%e9", "/a%252f", "/a@b", "/a:80", "/a,b", "/a~", "/a%7e",
	} {
		all = append(all, "x.example"+path)
	}
	all = append(all, "y.example/a", "x.example:80/a", "x.example:8080/a", "x.example./a", "xx.example/a", "[::1]/a", "[::1]:80/a")
	for _, at := range all {
		host, path, _ := strings.Cut(at, "/")
		path = "/" + path
		e.raw(host, path).want(t, 200, host+" "+path, "fwd=uri-miss", "stored")
		e.raw(host, path).want(t, 200, host+" "+path, "hit")
	}
	e.raw("X.EXAMPLE", "/a").want(t, 200, "x.example /a", "hit") // a host has no case (RFC 9110 §4.2.3)
}

// raw asks for a path as it is written.
func (e *edge) raw(host, path string) answer {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.front.Listener.Addr().String())
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{err: err, Response: &http.Response{Header: http.Header{}}}
	}
	body, err := io.ReadAll(response.Body)
	return answer{response, string(body), err}
}

// http and https are two keys: an origin may redirect one to the other.
func TestSchemesAreNeverMixed(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		u, _ := url.Parse("http://X.example:80/a?b")
		v := cache.NewView(&http.Request{Method: "GET", URL: u, Host: u.Host}, scheme)
		if got, want := string(v.AppendKey(nil)), scheme+"://x.example:80/a?b"; got != want {
			t.Errorf("key %q, want %q", got, want)
		}
	}
}

// Fields that the cache never stores come to nobody but the one they were for.
func TestNothingPersonalIsReplayed(t *testing.T) {
	n := 0
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Set("Cache-Control", `max-age=60, no-cache="Set-Cookie, X-Token", private="X-User"`)
		w.Header().Set("Set-Cookie", fmt.Sprint("session=", n))
		w.Header().Set("X-Token", fmt.Sprint(n))
		w.Header().Set("X-User", fmt.Sprint(n))
		w.Header().Set("Proxy-Authenticate", "Basic")
		io.WriteString(w, "page")
	}})
	first := e.get("/a")
	first.want(t, 200, "page", "stored")
	if first.Header.Get("Set-Cookie") != "session=1" || first.Header.Get("X-User") != "1" {
		t.Errorf("the first client got %v, want its own cookie", first.Header)
	}
	second := e.get("/a")
	second.want(t, 200, "page", "hit")
	for _, name := range []string{"Set-Cookie", "X-Token", "X-User", "Proxy-Authenticate"} {
		if got := second.Header.Get(name); got != "" {
			t.Errorf("replayed %s: %s", name, got)
		}
	}
}
