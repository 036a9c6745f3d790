package cache_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// breaker is an origin of bytes: what it says, and how it ends, is up to the test.
type breaker struct {
	listener net.Listener
	mu       sync.Mutex
	say      map[string]reply // by path
}

// reply is some bytes and what comes after them.
type reply struct {
	bytes string
	then  string // close, reset or stall
}

const stalled = 100 * time.Millisecond // how long the way to the breaker waits for the next byte

func newBreaker(t *testing.T) *breaker {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &breaker{listener: l, say: map[string]reply{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return b
}

func (b *breaker) serve(conn *net.TCPConn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	b.mu.Lock()
	say := b.say[r.URL.Path]
	b.mu.Unlock()
	io.WriteString(conn, say.bytes)
	switch say.then {
	case "reset":
		conn.SetLinger(0)
	case "stall":
		io.Copy(io.Discard, in) // until the other side has had enough
	}
}

func (b *breaker) set(path, bytes, then string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.say[path] = reply{bytes, then}
}

// RoundTrip goes to the breaker with a connection of its own.
func (b *breaker) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host = "http", b.listener.Addr().String()
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return impatient{conn}, err
		}}
	return transport.RoundTrip(r)
}

type impatient struct{ net.Conn }

func (c impatient) Read(p []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(stalled))
	return c.Conn.Read(p)
}

// message is a whole response with the body in one of HTTP/1.1's framings.
func message(framing, control, body string) string {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: %s\r\nCache-Control: %s\r\n", time.Now().UTC().Format(http.TimeFormat), control)
	switch framing {
	case "length":
		return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
	case "chunks":
		half := len(body) / 2
		return fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", head, half, body[:half], len(body)-half, body[half:])
	}
	return head + "Connection: close\r\n\r\n" + body
}

// The origin breaks off after each byte of its response in turn, in each way there is. Two clients at once get the
// whole, or an honest error, or what is stale where that is allowed; and what is stored afterwards is whole.
func TestOriginBreaksAtEveryByte(t *testing.T) {
	const body, old, next = "the body of the response", "what was there before", "the next response"
	step := sized(3, 1)
	for _, then := range []string{"close", "reset", "stall"} {
		for _, framing := range []string{"length", "chunks", "until close"} {
			for _, stale := range []bool{false, true} {
				if framing == "until close" && then == "close" {
					continue // RFC 9112 §8: then a response "is considered complete regardless of the number of octets"
				}
				t.Run(fmt.Sprint(then, " ", framing, " stale=", stale), func(t *testing.T) {
					t.Parallel()
					b := newBreaker(t)
					e := newEdge(t, setup{fetch: b, origin: func(http.ResponseWriter, *http.Request) {}})
					whole := message(framing, "max-age=60", body)
					head := strings.Index(whole, "\r\n\r\n") + 4
					path := func(n int) string { return fmt.Sprint("/", n) }
					if stale {
						for n := 0; n <= len(whole); n += step {
							b.set(path(n), message("length", "max-age=1, stale-if-error=3600", old), "close")
							e.get(path(n)).want(t, 200, old, "stored")
						}
						e.later(10 * time.Second)
					}
					var wg sync.WaitGroup
					for n := 0; n <= len(whole); n += step {
						b.set(path(n), whole[:n], then)
						for range 2 {
							wg.Go(func() {
								a := e.get(path(n))
								honest := a.err != nil || a.StatusCode == 502 || a.StatusCode == 504 || a.body == body
								if stale {
									honest = n >= head && (a.err != nil || a.body == body) || a.err == nil && a.StatusCode == 200 && a.body == old
								}
								if !honest {
									t.Errorf("broken after byte %d of %d: %v %d %q", n, len(whole), a.err, a.StatusCode, a.body)
								}
								if n == len(whole) && framing != "until close" && a.body != body && a.body != old {
									t.Errorf("broken after its end: %v %d %q", a.err, a.StatusCode, a.body)
								}
							})
						}
					}
					wg.Wait()
					if stale {
						e.later(time.Minute)
					}
					for n := 0; n <= len(whole); n += step {
						b.set(path(n), message("length", "max-age=60", next), "close")
						a := e.get(path(n))
						kept := n == len(whole) || framing == "chunks" && n == len(whole)-2 // without the last line, which says nothing
						if a.err != nil || a.body != next && !(kept && a.body == body) {
							t.Errorf("after a response broken after byte %d of %d: %v %d %q", n, len(whole), a.err, a.StatusCode, a.body)
						}
					}
				})
			}
		}
	}
}

// An origin whose words about the length of its body contradict each other, or the body, is no origin of objects.
func TestOriginLies(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
	for name, said := range map[string]string{
		"longer than told":      head + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nbody",
		"shorter than told":     head + "Content-Length: 9\r\n\r\nbody",
		"negative":              head + "Content-Length: -4\r\n\r\nbody",
		"no number":             head + "Content-Length: four\r\n\r\nbody",
		"list of two":           head + "Content-Length: 4, 5\r\n\r\nbody",
		"plus":                  head + "Content-Length: +4\r\n\r\nbody",
		"chunk without size":    head + "Transfer-Encoding: chunked\r\n\r\nbody\r\n0\r\n\r\n",
		"chunk with sign":       head + "Transfer-Encoding: chunked\r\n\r\n+4\r\nbody\r\n0\r\n\r\n",
		"chunk too long":        head + "Transfer-Encoding: chunked\r\n\r\n3\r\nbody\r\n0\r\n\r\n",
		"chunk too short":       head + "Transfer-Encoding: chunked\r\n\r\n9\r\nbody\r\n0\r\n\r\n",
		"chunk of 2^64":         head + "Transfer-Encoding: chunked\r\n\r\n10000000000000004\r\nbody\r\n0\r\n\r\n",
		"no last chunk":         head + "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
		"unknown coding":        head + "Transfer-Encoding: zip\r\n\r\nbody",
		"chunked not last":      head + "Transfer-Encoding: chunked, gzip\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
		"no status":             "HTTP/1.1 \r\nCache-Control: max-age=60\r\n\r\nbody",
		"not HTTP":              "SSH-2.0-OpenSSH_9.6\r\n",
		"header without colon":  head + "Oops\r\nContent-Length: 4\r\n\r\nbody",
		"endless header":        head + "X: " + strings.Repeat("x", 11<<20) + "\r\n\r\n",
		"two responses in one":  head + "Content-Length: 0\r\n\r\n" + head + "Content-Length: 4\r\n\r\nbody",
		"nothing":               "",
		"switching unasked":     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbody",
		"interim without end":   strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20),
		"304 that nobody asked": "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\nbody",
		"206 that nobody asked": "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-3/9\r\nContent-Length: 4\r\n\r\nbody",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBreaker(t)
			e := newEdge(t, setup{fetch: b, origin: func(http.ResponseWriter, *http.Request) {}})
			b.set("/a", said, "close")
			if a := e.get("/a"); a.err == nil && a.StatusCode == 200 && a.body == "body" {
				t.Errorf("got %d %q as whole", a.StatusCode, a.body)
			}
			eventually(t, "fetch ended", func() bool { return e.cache.Stats().Fills == 0 })
			if n := e.cache.Stats().Objects; n != 0 && name != "two responses in one" { // the first of which is whole
				t.Errorf("%d objects stored", n)
			}
		})
	}
}
