package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nearzone/nearzone/proxy"
)

// FuzzPath: a path that is let through has no dot segment in any reading, and strip takes off whole segments only.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a//b", "/%2e%2e/a", "/a%2F..%2fb", "/patches/x", `/patches\\x`, "/..;/a", "/%", "/a%00", "a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		segments, other, ok := proxy.Segments(escaped)
		if !ok {
			return
		}
		for _, reading := range [][]string{segments, other} {
			if slices.Contains(reading, "..") || slices.Contains(reading, ".") {
				t.Fatalf("%q is read as %q", escaped, reading)
			}
		}
		u, err := url.ParseRequestURI(escaped)
		if err != nil || u.RawQuery != "" || u.ForceQuery || u.Scheme != "" || u.Host != "" {
			return
		}
		out := proxy.Strip(u, []string{"patches"})
		stripped := segments[0] == "patches" && u.EscapedPath() != ""
		if got, was := strings.Count(out.EscapedPath(), "/"), strings.Count(u.EscapedPath(), "/"); stripped && got != max(was-1, 1) || !stripped && got != was {
			t.Fatalf("%q without patches is %q", u.EscapedPath(), out.EscapedPath())
		}
		if !strings.HasPrefix(out.EscapedPath(), "/") {
			t.Fatalf("%q without patches is %q", u.EscapedPath(), out.EscapedPath())
		}
	})
}

// FuzzForwardedFor: the client is never made up: it is the peer or stands in the field.
func FuzzForwardedFor(f *testing.F) {
	f.Add("203.0.113.9, 198.51.100.1")
	f.Add("[2001:db8::1]:80, , x")
	f.Add("::ffff:203.0.113.9%eth0,")
	f.Fuzz(func(t *testing.T, field string) {
		peer := netip.MustParseAddr("127.0.0.1")
		got := proxy.ClientOf(http.Header{"X-Forwarded-For": {field}}, peer, loopback())
		if !got.IsValid() || got.Zone() != "" || got.Is4In6() || got != peer && strings.TrimSpace(field) == "" {
			t.Fatalf("%q: client %v", field, got)
		}
	})
}

// FuzzReport: what is taken is within its bounds; nothing panics.
func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"zone": "a", "rtt_ms": 5}`))
	f.Add([]byte(`{"samples": [{"zone": "a", "rtt_ms": 5}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if n, err := proxy.ParseReport(body); err == nil && (n < 1 || n > 65) {
			t.Fatalf("%q: %d samples", body, n)
		}
	})
}

// FuzzLogString: whatever a client sends, a line of the log stays one line of JSON.
func FuzzLogString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\x7f\"\\\u2028\xff")
	f.Fuzz(func(t *testing.T, s string) {
		line := `"` + proxy.Escaped(s) + `"`
		var back string
		if err := json.Unmarshal([]byte(line), &back); err != nil || strings.ContainsAny(line, "\r\n") {
			t.Fatalf("%q became %s: %v", s, line, err)
		}
		if utf8.ValidString(s) && back != s {
			t.Fatalf("%q came back as %q", s, back)
		}
	})
}
