package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestForwardedHeaders(t *testing.T) {
	o := serve(t, echo)
	claims := []string{
		"X-Forwarded-For", "203.0.113.9, 198.51.100.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example",
		"X-Forwarded-Port", "1", "Forwarded", "for=203.0.113.9", "X-Real-Ip", "203.0.113.9", "X-Original-Url", "/admin",
		"X-Rewrite-Url", "/admin", "X-Http-Method-Override", "DELETE", "X-Http-Method", "DELETE", "X-Host", "evil.example",
		"X-Request-Id", "theirs", "X_forwarded_for", "203.0.113.9", "Proxy", "http://evil.example", "True-Client-Ip", "203.0.113.9",
	}
	gone := []string{
		"X-Forwarded-Port", "X-Real-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method",
		"X-Host", "X_forwarded_for", "Proxy", "True-Client-Ip",
	}
	for _, path := range []string{"/api/x", "/cached"} {
		t.Run("a stranger's "+path, func(t *testing.T) {
			e := start(t, app(t, o.URL))
			s := e.ask(e.client(), e.request("GET", path, "", claims...))
			for name, want := range map[string]string{
				"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "play.example.com",
				"Forwarded": `for=127.0.0.1;proto=http;host="play.example.com"`, "Via": "1.1 nearzone", "Cdn-Loop": `nearzone; node="node-1"`,
			} {
				if got := strings.Join(s.Header[name], " | "); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if id := s.Header.Get("X-Request-Id"); id == "" || id == "theirs" {
				t.Errorf("X-Request-Id %q", id)
			}
			for _, name := range gone {
				if v := s.Header[name]; len(v) > 0 {
					t.Errorf("%s went on: %q", name, v)
				}
			}
			if s.Host != "play.example.com" {
				t.Errorf("Host %q", s.Host)
			}
		})
		t.Run("a trusted proxy's "+path, func(t *testing.T) {
			cfg := app(t, o.URL)
			cfg.Listen.Trust.Proxies = append(loopback(), netip.MustParsePrefix("198.51.100.0/24"))
			e := start(t, cfg)
			s := e.ask(e.client(), e.request("GET", path, "", claims...))
			for name, want := range map[string]string{
				"X-Forwarded-For": "203.0.113.9, 198.51.100.1, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example",
				"Forwarded":    `for=203.0.113.9, for=127.0.0.1;proto=http;host="play.example.com"`,
				"X-Request-Id": "theirs", "X-Real-Ip": "203.0.113.9",
			} {
				if got := strings.Join(s.Header[name], " | "); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			eventually(t, "the log names the client", func() bool { return strings.Contains(e.access.String(), `"client":"203.0.113.9"`) })
		})
	}
}

func TestHopByHop(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Connection": "X-Answer-Hop, Cache-Control, Set-Cookie", "Keep-Alive": "timeout=9", "Proxy-Connection": "x",
			"X-Answer-Hop": "1", "X-Answer-End": "1", "Set-Cookie": "a=b", "Cache-Control": "no-store", "X-Request-Id": "origin's",
		} {
			w.Header().Set(name, value)
		}
		echo(w, r)
	})
	e := start(t, app(t, o.URL))
	for _, path := range []string{"/api/x", "/cached"} {
		r := e.request("GET", path, "", "Connection", "X-Hop, Authorization, Cookie, X-Forwarded-For, Content-Length, Host", "X-Hop", "1", "X-End", "1",
			"Authorization", "Basic eA==", "Cookie", "a=b", "Keep-Alive", "300", "Proxy-Authorization", "Basic eA==", "Te", "gzip, trailers",
			"Upgrade", "websocket", "Http2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
		res, body := e.do(e.client(), r)
		for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authorization", "Upgrade", "Http2-Settings", "Connection"} {
			if strings.Contains(body, `"`+name+`"`) {
				t.Errorf("%s: %s went on: %s", path, name, body)
			}
		}
		for _, want := range []string{`"X-End":["1"]`, `"Authorization":["Basic eA=="]`, `"Cookie":["a=b"]`, `"Te":["trailers"]`, `"X-Forwarded-For":["127.0.0.1"]`} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: the origin did not see %s: %s", path, want, body)
			}
		}
		for _, name := range []string{"X-Answer-Hop", "Keep-Alive", "Proxy-Connection", "Connection"} {
			if res.Header.Get(name) != "" {
				t.Errorf("%s: %s came back: %q", path, name, res.Header.Get(name))
			}
		}
		if res.Header.Get("X-Answer-End") != "1" || res.Header.Get("Set-Cookie") != "a=b" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: fields of the message are missing: %v", path, res.Header)
		}
		if id := res.Header["X-Request-Id"]; len(id) != 1 || id[0] == "origin's" {
			t.Errorf("%s: X-Request-Id %q", path, id)
		}
	}
}

func TestHTTP2ByUpgradeIsNotOffered(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL))
	got := e.raw("GET /api/x HTTP/1.1\r\nHost: play.example.com\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "h2c") || strings.Contains(got, "Http2-Settings") {
		t.Errorf("%q", got)
	}
}

func TestLoops(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL))
	for _, tc := range []struct {
		loop string
		code int
	}{
		{"", 200},
		{"other-cdn; x=y", 200},
		{`nearzone; node="node-2"`, 200},
		{`nearzone; node="node-2", nearzone; node="node-3"`, 200},
		{`nearzone; node="node-1"`, 508},
		{`other-cdn, nearzone; node="node-1"`, 508},
		{`nearzone; node="a", nearzone; node="b", NEARZONE; node="c"`, 508},
	} {
		var fields []string
		if tc.loop != "" {
			fields = []string{"Cdn-Loop", tc.loop}
		}
		res, body := e.do(e.client(), e.request("GET", "/api/x", "", fields...))
		if res.StatusCode != tc.code {
			t.Errorf("CDN-Loop %q: %d, want %d", tc.loop, res.StatusCode, tc.code)
		}
		if tc.code == 200 && tc.loop != "" && !strings.Contains(body, strings.ReplaceAll(tc.loop, `"`, `\"`)+", nearzone") {
			t.Errorf("CDN-Loop %q was not kept: %s", tc.loop, body)
		}
	}
}

// TestLoopOfOneself: an edge whose origin is itself.
func TestLoopOfOneself(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	e := start(t, cfg)
	next := app(t, "http://"+e.addr)
	next.Listen.HTTP = "127.0.0.1:0"
	swap, err := e.origins.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	swap()
	for _, path := range []string{"/api/x", "/cached"} {
		if res, _ := e.do(e.client(), e.request("GET", path, "")); res.StatusCode != 508 {
			t.Errorf("%s: %d, want 508", path, res.StatusCode)
		}
	}
}

// TestSmugglingThroughTheEdge: what the gate must refuse is refused in place, and the origin sees nothing of it.
func TestSmugglingThroughTheEdge(t *testing.T) {
	saw := make(chan string, 100)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		saw <- fmt.Sprintf("%s %s %q", r.Method, r.RequestURI, body)
	})
	e := start(t, app(t, o.URL))
	const next = "GET /api/smuggled HTTP/1.1\r\nHost: play.example.com\r\n\r\n"
	head := func(fields string) string {
		return "POST /api/a HTTP/1.1\r\nHost: play.example.com\r\n" + fields + "\r\n"
	}
	for _, tc := range []struct{ name, sent, codes, saw string }{
		{"cl.te", head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + next, "400", ""},
		{"te.cl", head("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "0\r\n\r\n" + next, "400", ""},
		{"te.te", head("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n") + "0\r\n\r\n" + next, "400", ""},
		{"lengths", head("Content-Length: 4\r\nContent-Length: 0\r\n") + "abcd" + next, "400", ""},
		{"fold", head("X: y\r\n Content-Length: 4\r\n") + "abcd" + next, "400", ""},
		{"bare LF", head("X: y\nContent-Length: 4\r\n") + "abcd" + next, "400", ""},
		{"space before colon", head("Content-Length : 4\r\n") + "abcd" + next, "400", ""},
		{"two hosts", "GET /api/a HTTP/1.1\r\nHost: play.example.com\r\nHost: x\r\n\r\n" + next, "400", ""},
		{"absolute form wins", "GET http://play.example.com/api/a HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n", "200", `GET /api/a ""`},
		{"connect", "CONNECT play.example.com:443 HTTP/1.1\r\nHost: play.example.com:443\r\n\r\n" + next, "400", ""},
		{"upgrade refused", "GET /api/a HTTP/1.1\r\nHost: play.example.com\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + "GET / HTTP/1.1\nHost: x\n\n", "200 400", `GET /api/a ""`},
		{"chunk of bare LF", head("Transfer-Encoding: chunked\r\n") + "4\nabcd\r\n0\r\n\r\n" + next, "400", "any"},
	} {
		c := e.dial()
		go io.WriteString(c, tc.sent)
		if got := answersOn(c); got != tc.codes {
			t.Errorf("%s: answered %q, want %q", tc.name, got, tc.codes)
		}
		var got string
		select {
		case got = <-saw:
		default:
		}
		if got != tc.saw && tc.saw != "any" || strings.Contains(got, "smuggled") {
			t.Errorf("%s: the origin saw %q, want %q", tc.name, got, tc.saw)
		}
	}
}

func TestHostOfTheOrigin(t *testing.T) {
	o := serve(t, echo)
	cfg := app(t, o.URL)
	cfg.Origins[0].Host = "internal.example"
	e := start(t, cfg)
	s := e.ask(e.client(), e.request("GET", "/api/x", ""))
	if s.Host != "internal.example" || s.Header.Get("X-Forwarded-Host") != "play.example.com" {
		t.Errorf("Host %q, X-Forwarded-Host %q", s.Host, s.Header.Get("X-Forwarded-Host"))
	}
}

func TestUserAgentIsTheClients(t *testing.T) {
	o := serve(t, echo)
	e := start(t, app(t, o.URL))
	for _, path := range []string{"/api/x", "/cached"} {
		r := e.request("GET", path, "")
		r.Header["User-Agent"] = []string{""}
		if s := e.ask(e.client(), r); s.Header["User-Agent"] != nil {
			t.Errorf("%s: User-Agent %q came from nowhere", path, s.Header["User-Agent"])
		}
	}
}
