package proxy_test

import (
	"io"
	"net/http"
	"strings"
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

// Fields that servers read in a head must not come in by the trailers (RFC 9110 §6.5.1), declared or not.
func TestTrailersMakeNoClaims(t *testing.T) {
	got := make(chan http.Header, 1)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		got <- r.Trailer
	})
	cfg := app(t, o.URL)
	cfg.Listen.Trust.Proxies = loopback()
	e := start(t, cfg, withTLS(t, cfg))
	everyProtocol(t, e, func(t *testing.T, c *http.Client, base string, _ int) {
		r, _ := http.NewRequest("POST", base+"/api/x", io.MultiReader(strings.NewReader("body")))
		r.Host = "play.example.com"
		r.Trailer = http.Header{
			"X-Sum": {"1"}, "X-Forwarded-For": {"192.0.2.1"}, "X_real_ip": {"192.0.2.1"}, "Nearzone-Hop": {"x"},
		}
		e.do(c, r)
		if trailer := <-got; len(trailer) != 1 || trailer.Get("X-Sum") != "1" {
			t.Errorf("the origin got trailers %v, want X-Sum alone", trailer)
		}
	})
	t.Run("undeclared", func(t *testing.T) {
		e.raw("POST /api/x HTTP/1.1\r\nHost: play.example.com\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n" +
			"1\r\na\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: 192.0.2.1\r\nAuthorization: x\r\nCookie: a=b\r\n\r\n")
		if trailer := <-got; len(trailer) != 1 || trailer.Get("X-Sum") != "1" {
			t.Errorf("the origin got trailers %v, want X-Sum alone", trailer)
		}
	})
}

// Servers that know fields by their CGI names read `_` as `-`. No spelling of a framing field may pass.
func TestUnderscoresHideNothing(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Listen.Trust.Proxies = loopback()
	e := start(t, cfg)
	s := e.ask(e.client(), e.request("GET", "/api/x", "", "Content_Length", "10", "Transfer_Encoding", "chunked", "X_Forwarded_For", "192.0.2.1", "Content_Type", "a/b", "My_Field", "kept"))
	for _, name := range []string{"Content_length", "Transfer_encoding", "X_forwarded_for", "Content_type"} {
		if s.Header[name] != nil {
			t.Errorf("the origin got %s: %q", name, s.Header[name])
		}
	}
	if s.Header.Get("My_field") != "kept" {
		t.Errorf("My_Field is gone: %v", s.Header)
	}
}
