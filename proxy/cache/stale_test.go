package cache_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

func TestStaleWhileRevalidate(t *testing.T) {
	for name, s := range map[string]setup{
		"header": {origin: respond(200, "Cache-Control: max-age=10, stale-while-revalidate=30")},
		"policy": {origin: respond(200, "Cache-Control: max-age=10"), policy: config.Cache{StaleWhileRevalidate: 30 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, s)
			e.get("/a").want(t, 200, "1", "stored")
			e.later(20 * time.Second)
			e.get("/a").want(t, 200, "1", "hit; ttl=-1", "detail=stale-while-revalidate")
			eventually(t, "validated behind", func() bool {
				return strings.Contains(e.get("/a").status(), "hit; ttl=9") || strings.Contains(e.get("/a").status(), "hit; ttl=10")
			})
			e.get("/a").want(t, 200, "2", "hit")
			e.wantAsked(2)
			e.later(41 * time.Second)
			e.get("/a").want(t, 200, "3", "fwd=stale")
		})
	}
}

func TestMustRevalidateIsNeverStale(t *testing.T) {
	e := newEdge(t, setup{origin: respond(200, "Cache-Control: max-age=10, must-revalidate, stale-while-revalidate=30"),
		policy: config.Cache{StaleIfError: time.Hour}})
	e.get("/a")
	e.later(20 * time.Second)
	e.get("/a").want(t, 200, "2", "fwd=stale")
	e.later(20 * time.Second)
	e.origin.Close()
	e.get("/a").want(t, 504, "Gateway Timeout\n")
}

func TestStaleIfError(t *testing.T) {
	for _, way := range []string{"503", "gone"} {
		t.Run(way, func(t *testing.T) {
			var down atomic.Bool
			e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
				if down.Load() {
					if way == "gone" {
						panic(http.ErrAbortHandler)
					}
					w.WriteHeader(503)
					return
				}
				w.Header().Set("Cache-Control", "max-age=10, stale-if-error=60")
				fmt.Fprint(w, "good")
			}})
			e.get("/a").want(t, 200, "good")
			down.Store(true)
			e.later(20 * time.Second)
			e.get("/a").want(t, 200, "good", "fwd=stale", "detail=stale-if-error")
			n := e.asked.Load()
			e.get("/a").want(t, 200, "good", "hit", "detail=stale-if-error") // at once: the origin has just failed
			e.wantAsked(n)
			e.later(2 * time.Second)
			down.Store(false)
			e.get("/a").want(t, 200, "good", "hit") // and validates behind
			eventually(t, "fresh again", func() bool { return !strings.Contains(e.get("/a").status(), "stale-if-error") })
			down.Store(true)
			e.later(80 * time.Second)
			if a := e.get("/a"); a.StatusCode < 500 {
				t.Errorf("got %d beyond stale-if-error", a.StatusCode)
			}
		})
	}
}

// A page that is gone or private now does not come back when its origin fails.
func TestWhatIsNoMoreIsNeverStale(t *testing.T) {
	for _, now := range []struct {
		code    int
		control string
	}{{404, ""}, {410, "no-cache"}, {200, "private"}, {200, "no-store"}} {
		var n atomic.Int64
		e := newEdge(t, setup{policy: config.Cache{StaleIfError: time.Hour}, origin: func(w http.ResponseWriter, r *http.Request) {
			switch n.Add(1) {
			case 1:
				w.Header().Set("Cache-Control", "max-age=10")
			case 2:
				w.Header().Set("Cache-Control", now.control)
				w.WriteHeader(now.code)
			default:
				w.WriteHeader(503)
			}
		}})
		e.get("/a").want(t, 200, "", "stored")
		e.later(20 * time.Second)
		e.get("/a").want(t, now.code, "")
		e.get("/a").want(t, 503, "")
	}
}

func TestPurge(t *testing.T) {
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=60")
		w.Header().Set("Vary", "X-V")
		w.Header().Set("Surrogate-Key", "one two")
		w.Header().Set("Cache-Tag", "three,four")
		w.Header().Set("xkey", "five")
	}})
	load := func() {
		for _, v := range []string{"a", "b"} {
			e.get("/dir/a?b", "Host", "x.example", "X-V", v)
			e.get("/dir/a?b", "Host", "x.example", "X-V", v).want(t, 200, "", "hit")
		}
		e.get("/other", "Host", "y.example")
	}
	for _, p := range []cache.Purge{
		{URL: "https://x.example/dir/a?b"}, {URL: "http://X.example:8080/dir/a?b"}, {Prefix: "http://x.example/dir/"}, {Prefix: "http://x.example"},
		{Host: "x.example"}, {Tag: "one"}, {Tag: "two"}, {Tag: "four"}, {Tag: "five"},
	} {
		load()
		if err := e.cache.Purge(p); err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		for _, v := range []string{"a", "b"} {
			if s := e.get("/dir/a?b", "Host", "x.example", "X-V", v).status(); strings.Contains(s, "hit") {
				t.Errorf("%+v: %s afterwards", p, s)
			}
		}
		if p.Tag == "" {
			e.get("/other", "Host", "y.example").want(t, 200, "", "hit")
		}
	}
	for _, p := range []cache.Purge{{URL: "http://x.example/dir/a"}, {Prefix: "http://x.example/di/"}, {Host: "dir"}, {Tag: "six"}} {
		load()
		if err := e.cache.Purge(p); err != nil {
			t.Fatal(err)
		}
		e.get("/dir/a?b", "Host", "x.example", "X-V", "a").want(t, 200, "", "hit")
	}
	load()
	e.cache.Purge(cache.Purge{Tag: "one", Soft: true})
	e.get("/dir/a?b", "Host", "x.example", "X-V", "a").want(t, 200, "", "hit; ttl=-1; detail=stale-while-revalidate")
	e.cache.Purge(cache.Purge{Host: "x.example"})
	eventually(t, "room reclaimed", func() bool { return e.cache.Stats().Objects <= 1 })
}

func TestRevalidateAll(t *testing.T) {
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("If-None-Match") == `"one"` {
			w.WriteHeader(http.StatusNotModified)
		}
	}})
	for _, path := range []string{"/a", "/b"} {
		e.get(path, "Host", "x.example")
		e.get(path, "Host", "x.example").want(t, 200, "", "hit")
	}
	e.cache.RevalidateAll()
	for _, path := range []string{"/a", "/b"} {
		if s := e.get(path, "Host", "x.example").status(); !strings.Contains(s, "fwd=stale") {
			t.Errorf("%s afterwards: %s, want it asked for again", path, s)
		}
		e.get(path, "Host", "x.example").want(t, 200, "", "hit")
	}
}

func TestPurgeRefuses(t *testing.T) {
	for _, p := range []cache.Purge{
		{}, {URL: "http://a/", Host: "a"}, {URL: "/a"}, {URL: "ftp://a/"}, {Prefix: "a"}, {Host: "http://a"}, {Tag: "a b"}, {URL: "http://%zz/"},
	} {
		if p.Validate() == nil {
			t.Errorf("%+v passes", p)
		}
	}
}

func TestPurgeDuringFill(t *testing.T) {
	for _, p := range []cache.Purge{{URL: "http://x.example/a"}, {Tag: "one"}} {
		for _, when := range []string{"before head", "after head"} {
			t.Run(fmt.Sprint(p, when), func(t *testing.T) {
				release := make(chan struct{})
				var n atomic.Int64
				e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Cache-Control", "max-age=60")
					w.Header().Set("Surrogate-Key", "one")
					i := n.Add(1)
					if i == 1 && when == "after head" {
						fmt.Fprint(w, "v")
						w.(http.Flusher).Flush()
					}
					if i == 1 {
						<-release
					}
					fmt.Fprint(w, i)
				}})
				old := make(chan answer)
				go func() { old <- e.get("/a", "Host", "x.example") }()
				eventually(t, "origin asked", func() bool { return n.Load() == 1 })
				if when == "after head" {
					eventually(t, "published", func() bool { return e.cache.Stats().Bytes > 0 })
				}
				e.cache.Purge(p)
				if when == "after head" {
					e.get("/a", "Host", "x.example").want(t, 200, "2", "uri-miss")
				}
				close(release)
				<-old
				e.get("/a", "Host", "x.example").want(t, 200, "2")
			})
		}
	}
}

func TestManyPurgesNeverServeThePurged(t *testing.T) {
	e := newEdge(t, setup{origin: respond(200, "Cache-Control: max-age=60", "Surrogate-Key: one")})
	e.get("/a", "Host", "x.example").want(t, 200, "1")
	e.cache.Purge(cache.Purge{Tag: "one"})
	for i := range 1 << 17 {
		e.cache.Purge(cache.Purge{Tag: fmt.Sprint("t", i)})
	}
	e.get("/a", "Host", "x.example").want(t, 200, "2", "stored")
	e.get("/a", "Host", "x.example").want(t, 200, "2", "hit")
}

// The real clock of the cache, bent.
func TestTimePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := cache.New(cache.Options{Store: store.New(1<<20, nil)})
		route := cache.Route{Scheme: "http", Fetch: roundTrip(func(r *http.Request) (*http.Response, error) {
			n++
			time.Sleep(3 * time.Second)
			return &http.Response{StatusCode: 200, ContentLength: 0, Body: http.NoBody,
				Header: http.Header{"Cache-Control": {"max-age=10"}, "Date": {time.Now().UTC().Format(http.TimeFormat)}}}, nil
		})}
		ask := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			c.Serve(w, httptest.NewRequest("GET", "http://x.example/", nil), route)
			return w
		}
		ask()
		time.Sleep(6 * time.Second) // 3 s on the way and 6 s here
		if w := ask(); w.Header().Get("Age") != "9" || w.Header().Get("Cache-Status") != "nearzone; hit; ttl=1" {
			t.Errorf("Age %q, Cache-Status %q", w.Header().Get("Age"), w.Header().Get("Cache-Status"))
		}
		time.Sleep(time.Second)
		if ask(); n != 2 {
			t.Errorf("origin asked %d times, want 2", n)
		}
	})
}
