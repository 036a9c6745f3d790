package cache_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

// sink is a ResponseWriter that costs nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkHit(b *testing.B) {
	c := cache.New(cache.Options{Store: store.New(1<<20, nil), Reg: prometheus.NewRegistry()})
	body := strings.Repeat("x", 1024)
	route := cache.Route{Site: "play", Scheme: "http", Fetch: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, ContentLength: 1024, Body: io.NopCloser(strings.NewReader(body)),
			Header: http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"text/plain"}, "Etag": {`"a"`}, "Content-Length": {"1024"}}}, nil
	})}
	r := httptest.NewRequest("GET", "http://play.example.com/segment/000001.ts", nil)
	c.Serve(&sink{http.Header{}}, r, route)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &sink{http.Header{}}
		for pb.Next() {
			clear(w.header)
			if out := c.Serve(w, r, route); out.Status != "hit" {
				b.Errorf("got %+v", out)
			}
		}
	})
}
