package proxy_test

import (
	"net/http"
	"sync"
	"testing"
)

// An HTTP/2 client names method and target in fields that net/http takes for what they are. What the gate would
// refuse of them in HTTP/1 must not reach an origin, nor lay an answer under the key of another URL.
func TestHTTP2RequestLineIsChecked(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.RequestURI)
		w.Header().Set("Cache-Control", "max-age=60")
	})
	e := start(t, app(t, o.URL))
	for _, tc := range []struct{ method, path, want string }{
		{"GET", "http:admin", "400"}, // has no path: was taken for /, and sent as it is
		{"GET", "http:@internal/x", "400"},
		{"GET", "http://evil.example.com/x", "400"}, // RFC 9113 §8.3.1: a path, or * alone
		{"GET", "/?a b HTTP/1.1", "400"},
		{"GET", "/a b", "400"},
		{"GET", "/?a#b", "400"},
		{"GET", "*", "400"},
		{"GET /admin", "/", "400"},
		{"GET", "/fine?a=b", "200"},
		{"OPTIONS", "*", "200"},
	} {
		h := e.h2raw()
		if got := h.answer(h.open(tc.method, tc.path, true)); got != tc.want {
			t.Errorf("%q %q: %s, want %s", tc.method, tc.path, got, tc.want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || asked[0] != "GET /fine?a=b" {
		t.Errorf("the origin was asked %q", asked)
	}
}
