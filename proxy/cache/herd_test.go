package cache_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

// sized is what a run's length asks for (NEARZONE_TEST_SIZE: short, which is the default, or long).
func sized(short, long int) int {
	if os.Getenv("NEARZONE_TEST_SIZE") == "long" {
		return long
	}
	return short
}

// said is an origin's answer without a socket. Date is set when it is given.
func said(code int, body string, lines ...string) *http.Response {
	h := http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return &http.Response{StatusCode: code, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}

// herd lets n clients ask for one URL while the origin is at its first answer, and gives what they got. Nothing
// is left to chance: time is bent, and nobody is answered before all wait.
func herd(t *testing.T, n int, fetch func(asked int64) (*http.Response, error)) (answers []*httptest.ResponseRecorder, asked int64) {
	c := cache.New(cache.Options{Store: store.New(1<<20, nil)})
	var count atomic.Int64
	release := make(chan struct{})
	route := cache.Route{Scheme: "http", Fetch: roundTrip(func(r *http.Request) (*http.Response, error) {
		i := count.Add(1)
		if i == 1 {
			<-release
		}
		time.Sleep(time.Second)
		return fetch(i)
	})}
	answers = make([]*httptest.ResponseRecorder, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			answers[i] = httptest.NewRecorder()
			c.Serve(answers[i], httptest.NewRequest("GET", "http://x.example/a", nil), route)
		})
	}
	synctest.Wait()
	if got := count.Load(); got != 1 {
		t.Errorf("%d requests at the origin while all wait, want 1", got)
	}
	close(release)
	wg.Wait()
	return answers, count.Load()
}

func TestHerdIsOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers, asked := herd(t, sized(200, 1000), func(int64) (*http.Response, error) {
			return said(200, "body", "Cache-Control: max-age=60"), nil
		})
		collapsed := 0
		for i, a := range answers {
			if a.Code != 200 || a.Body.String() != "body" {
				t.Errorf("client %d got %d %q", i, a.Code, a.Body)
			}
			if strings.Contains(a.Header().Get("Cache-Status"), "collapsed") {
				collapsed++
			}
		}
		if asked != 1 || collapsed != len(answers)-1 {
			t.Errorf("%d requests at the origin and %d collapsed, want 1 and %d", asked, collapsed, len(answers)-1)
		}
	})
}

// A failing origin is asked by the first client and by one of those who waited; what it says then is for all.
func TestHerdSharesAFailure(t *testing.T) {
	fails := func(code int, lines ...string) func(int64) (*http.Response, error) {
		return func(int64) (*http.Response, error) { return said(code, "sorry", lines...), nil }
	}
	for _, c := range []struct {
		name  string
		code  int
		fetch func(int64) (*http.Response, error)
	}{
		{"unreachable", 502, func(int64) (*http.Response, error) { return nil, errAny }},
		{"too slow", 504, func(int64) (*http.Response, error) { return nil, os.ErrDeadlineExceeded }},
		{"503", 503, fails(503)},
		{"500 with a validator", 500, fails(500, "Cache-Control: no-cache", `ETag: "a"`)},
		{"500 with a cookie", 500, fails(500, "Cache-Control: max-age=60", "Set-Cookie: a=b")},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers, asked := herd(t, 30, c.fetch)
				for i, a := range answers {
					if a.Code != c.code {
						t.Errorf("client %d got %d, want %d", i, a.Code, c.code)
					}
				}
				if asked != 2 {
					t.Errorf("%d requests at the origin, want 2", asked)
				}
			})
		})
	}
}

// A failure that was the first client's own, or is over, is for nobody else.
func TestHerdOutlivesOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers, asked := herd(t, 30, func(asked int64) (*http.Response, error) {
			if asked == 1 {
				return said(500, "not for you"), nil
			}
			return said(200, "body", "Cache-Control: max-age=60"), nil
		})
		codes := map[string]int{}
		for _, a := range answers {
			codes[fmt.Sprint(a.Code, " ", a.Body)]++
		}
		if codes["500 not for you"] != 1 || codes["200 body"] != 29 || asked != 2 {
			t.Errorf("answers %v from %d requests at the origin", codes, asked)
		}
	})
}
