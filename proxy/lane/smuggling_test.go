package lane_test

import (
	"strings"
	"testing"

	"github.com/nearzone/nearzone/proxy/lane"
)

// smuggling are requests that two servers could read in two ways, each followed by one that must not be reached,
// and their harmless neighbours. sent is followed by GET /next, asking to close, except when it says so itself.
var smuggling = []struct {
	name, sent string
	codes      string // all statuses on the connection
	seen       string // what the handler saw, joined by ", "
}{
	// Content-Length beside Transfer-Encoding.
	{"cl.te", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te.cl", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400", ""},
	{"cl 0 and te", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"get with cl and te", "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te identity and cl", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", "400", ""},
	// Content-Length.
	{"cl differ", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "400", ""},
	{"cl repeated", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "200 200", "POST /a 5, GET /next 0"},
	{"cl 5 and 05", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 05\r\n\r\nhello", "400", ""},
	{"cl list", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello", "400", ""},
	{"cl list differs", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5,6\r\n\r\nhello!", "400", ""},
	{"cl plus", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", "400", ""},
	{"cl minus", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400", ""},
	{"cl hex", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", "400", ""},
	{"cl space inside", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1 1\r\n\r\nhello world", "400", ""},
	{"cl empty", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", "400", ""},
	{"cl float", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5.0\r\n\r\nhello", "400", ""},
	{"cl huge", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", "400", ""},
	{"cl underscore", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5_0\r\n\r\nhello", "400", ""},
	{"cl on get", "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "200 200", "GET /a 5, GET /next 0"},
	{"cl with leading zero", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 05\r\n\r\nhello", "200 200", "POST /a 5, GET /next 0"},
	{"cl with vertical tab", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length:\v5\r\n\r\nhello", "400", ""},
	{"cl with space before colon", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello", "400", ""},
	{"cl with tab before colon", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length\t: 5\r\n\r\nhello", "400", ""},
	// Transfer-Encoding.
	{"te twice", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te twice, one unknown", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n", "400", ""},
	{"te gzip, chunked", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te chunked, identity", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400", ""},
	{"te xchunked", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te quoted", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "400", ""},
	{"te empty", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", "400", ""},
	{"te with parameter", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", "400", ""},
	{"te with kelvin sign", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n", "400", ""},
	{"te with NUL", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n", "400", ""},
	{"te with vertical tab", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te folded", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te on 1.0", "POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te with space before colon", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te after bare CR", "POST /a HTTP/1.1\r\nHost: x\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
	{"te upper case", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "200 200", "POST /a 3, GET /next 0"},
	// Heads.
	{"bare LF after request line", "GET /a HTTP/1.1\nHost: x\r\n\r\n", "400", ""},
	{"bare LF after a field", "GET /a HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", "400", ""},
	{"bare LF at the end", "GET /a HTTP/1.1\r\nHost: x\r\n\n", "400", ""},
	{"bare LF only", "GET /a HTTP/1.1\nHost: x\n\n", "400", ""},
	{"bare CR in request line", "GET /a\rHTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"bare CR in a value", "GET /a HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", "400", ""},
	{"bare CR before CRLF", "GET /a HTTP/1.1\r\nHost: x\r\nX: a\r\r\n\r\n", "400", ""},
	{"NUL in a value", "GET /a HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", "400", ""},
	{"NUL in a name", "GET /a HTTP/1.1\r\nHost: x\r\nX\x00Y: a\r\n\r\n", "400", ""},
	{"folded value", "GET /a HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", "400", ""},
	{"folded first line", "GET /a HTTP/1.1\r\n Host: x\r\n\r\n", "400", ""},
	{"tab folded", "GET /a HTTP/1.1\r\nHost: x\r\nX: a\r\n\tContent-Length: 5\r\n\r\n", "400", ""},
	{"empty name", "GET /a HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", "400", ""},
	{"no colon", "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length\r\n\r\n", "400", ""},
	{"name with brackets", "GET /a HTTP/1.1\r\nHost: x\r\nX[0]: y\r\n\r\n", "400", ""},
	{"name with high bytes", "GET /a HTTP/1.1\r\nHost: x\r\nCont\xc3\xa9nt: y\r\n\r\n", "400", ""},
	{"empty line first", "\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n", "200 200", "GET /a 0, GET /next 0"},
	{"two empty lines first", "\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"two spaces", "GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"tab for space", "GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"space in target", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"version of HTTP/0.9", "GET /a\r\n\r\n", "400", ""},
	{"lower-case version", "GET /a http/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"version 1.1x", "GET /a HTTP/1.1x\r\nHost: x\r\n\r\n", "400", ""},
	{"version 2.0", "GET /a HTTP/2.0\r\nHost: x\r\n\r\n", "505", ""},
	{"version 1.2", "GET /a HTTP/1.2\r\nHost: x\r\n\r\n", "505", ""},
	{"method with slash", "GE/T /a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"connect", "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", "400", ""},
	{"pri", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505", ""},
	{"pri on 1.1", "PRI * HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"options star", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200 200", "GET /next 0"},
	{"get star", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"relative target", "GET a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"broken escape", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"cut escape", "GET /%2 HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"broken escape in query", "GET /a?%zz HTTP/1.1\r\nHost: x\r\n\r\n", "200 200", "GET /a?%zz 0, GET /next 0"},
	// Host and the absolute form.
	{"no host", "GET /a HTTP/1.1\r\nX: y\r\n\r\n", "400", ""},
	{"no host on 1.0", "GET /a HTTP/1.0\r\n\r\n", "200", "GET /a 0"},
	{"two hosts", "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400", ""},
	{"two equal hosts", "GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "400", ""},
	{"two hosts on 1.0", "GET /a HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", "400", ""},
	{"empty host", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", "400", ""},
	{"host with userinfo", "GET /a HTTP/1.1\r\nHost: u@x\r\n\r\n", "400", ""},
	{"host with path", "GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", "400", ""},
	{"host with query", "GET /a HTTP/1.1\r\nHost: x?y\r\n\r\n", "400", ""},
	{"host with fragment", "GET /a HTTP/1.1\r\nHost: x#y\r\n\r\n", "400", ""},
	{"host list", "GET /a HTTP/1.1\r\nHost: x, y\r\n\r\n", "400", ""},
	{"host with backslash", "GET /a HTTP/1.1\r\nHost: x\\y\r\n\r\n", "400", ""},
	{"host with text port", "GET /a HTTP/1.1\r\nHost: x:http\r\n\r\n", "400", ""},
	{"host with space before colon", "GET /a HTTP/1.1\r\nHost : x\r\n\r\n", "400", ""},
	{"host by address", "GET /a HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", "200 200", "GET /a 0, GET /next 0"},
	{"absolute", "GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n", "200 200", "GET http://x/a 0, GET /next 0"},
	{"absolute without host", "GET http://x/a HTTP/1.1\r\n\r\n", "400", ""},
	{"absolute ftp", "GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"absolute file", "GET file:///a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"absolute with userinfo", "GET http://u@x/a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"absolute without authority", "GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	{"absolute opaque", "GET http:x HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
	// Chunks.
	{"chunk of bare LF", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk data ends in LF", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", "400", "POST /a 3 !"},
	{"chunk ends in LF", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\n\r\n", "400", "POST /a 3 !"},
	{"chunk with bare CR in extension", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk with LF in extension", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk with extension", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", "200 200", "POST /a 3, GET /next 0"},
	{"chunk of hex prefix", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk of plus", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk of minus", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk with leading space", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk with trailing space", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk without size", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", "400", "POST /a 0 !"},
	{"chunk too large", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc", "400", "POST /a 0 !"},
	{"chunk longer than said", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "400", "POST /a 3 !"},
	{"trailer", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n", "200 200", "POST /a 3, GET /next 0"},
	{"trailer of bare LF", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\n\r\n", "400", "POST /a 3 !"},
	{"trailer folded", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n", "400", "POST /a 3 !"},
	{"trailer of framing", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", "400", "POST /a 3 !"},
	{"trailer without name", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n: y\r\n\r\n", "400", "POST /a 3 !"},
	{"trailer with NUL", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: \x00\r\n\r\n", "400", "POST /a 3 !"},
	// Requests sent ahead.
	{"second is refused", "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", "200 400", "GET /a 0"},
	{"body then refused", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\nHost: x\n\n", "200 400", "POST /a 3"},
	{"three ahead", "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET /c HTTP/1.1\r\nHost: x\r\n\r\n", "200 200 200 200", "GET /a 0, POST /b 2, GET /c 0, GET /next 0"},
}

const next = "GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

func TestSmuggling(t *testing.T) {
	if len(smuggling) < 60 {
		t.Fatalf("only %d cases", len(smuggling))
	}
	for _, split := range []int{0, 1, 7} {
		for _, tc := range smuggling {
			e := serve(t, lane.Options{}, nil)
			c := dial(t, e.addr)
			go send(c, tc.sent+next, split)
			if got := answers(c); got != tc.codes {
				t.Errorf("%s (split %d): answered %q, want %q", tc.name, split, got, tc.codes)
			}
			if got := seenWithoutErrors(e); got != tc.seen {
				t.Errorf("%s (split %d): handler saw %q, want %q", tc.name, split, got, tc.seen)
			}
		}
	}
}

// send writes s at once, or n bytes a write.
func send(c interface{ Write([]byte) (int, error) }, s string, n int) {
	if n == 0 {
		n = len(s)
	}
	for len(s) > 0 {
		piece := s[:min(n, len(s))]
		if _, err := c.Write([]byte(piece)); err != nil {
			return
		}
		s = s[len(piece):]
	}
}

// seenWithoutErrors lists what the handler saw, body errors cut to their mark and to what is certain of their length.
func seenWithoutErrors(e *edge) string {
	var out []string
	for _, s := range e.requests() {
		if i := strings.IndexByte(s, '!'); i >= 0 {
			s = s[:i+1]
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func TestValidRequest(t *testing.T) {
	for _, tc := range []struct {
		method, path string
		want         bool
	}{
		{"GET", "/", true}, {"GET", "/a?b=/%zz", true}, {"OPTIONS", "*", true}, {"M-SEARCH", "/x", true},
		{"GET", "", false}, {"GET", "*", false}, {"GET", "*x", false}, {"GET", "a", false}, {"GET", "http:a", false},
		{"GET", "http://play.example.com/", false}, {"GET", "/a b", false}, {"GET", "/?a b", false},
		{"GET", "/a#b", false}, {"GET", "/\r\n", false}, {"GET", "/%zz", false},
		{"", "/", false}, {"GET ", "/", false}, {"GET /x", "/", false}, {"CONNECT", "/", false}, {"PRI", "*", false},
	} {
		if got := lane.ValidRequest(tc.method, tc.path); got != tc.want {
			t.Errorf("ValidRequest(%q, %q) = %v, want %v", tc.method, tc.path, got, tc.want)
		}
	}
}
