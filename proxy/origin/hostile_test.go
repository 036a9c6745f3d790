package origin_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

// readHead reads a request up to its body.
func readHead(c net.Conn) (*http.Request, error) { return http.ReadRequest(bufio.NewReader(c)) }

// hasty is an origin with timeouts short enough to wait for.
func hasty(servers ...string) config.Origin {
	o := app(servers...)
	o.Timeouts = config.OriginTimeouts{Connect: 500 * time.Millisecond, FirstByte: 150 * time.Millisecond, Idle: 150 * time.Millisecond}
	return o
}

func TestHostileOrigins(t *testing.T) {
	for _, tc := range []struct {
		name   string
		handle func(c net.Conn)
		want   error  // of RoundTrip, or of the body
		says   string // part of the error
	}{
		{"says nothing", func(c net.Conn) {
			io.Copy(io.Discard, c)
		}, origin.ErrTimeout, "timeouts.first_byte"},
		{"head that never ends", func(c net.Conn) {
			readHead(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, "X-%d: y\r\n", i); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) // it drips
			}
		}, origin.ErrTimeout, "timeouts.first_byte"},
		{"head without bound", func(c net.Conn) {
			readHead(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX: ")
			for chunk := strings.Repeat("y", 16<<10); ; {
				if _, err := io.WriteString(c, chunk); err != nil {
					return
				}
			}
		}, origin.ErrBroken, "headers exceeded"},
		{"informational responses without end", func(c net.Conn) {
			readHead(c)
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
					return
				}
			}
		}, nil, ""},
		{"not HTTP", func(c net.Conn) {
			readHead(c)
			fmt.Fprint(c, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
		}, origin.ErrBroken, "malformed"},
		{"hangs up", func(c net.Conn) { readHead(c) }, origin.ErrBroken, "EOF"},
		{"body that stalls", func(c net.Conn) {
			readHead(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.")
			io.Copy(io.Discard, c)
		}, origin.ErrTimeout, "timeouts.idle"},
		{"body cut short", func(c net.Conn) {
			readHead(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.")
		}, io.ErrUnexpectedEOF, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := hasty(raw(t, tc.handle))
			if tc.want == origin.ErrBroken {
				o.Timeouts.FirstByte = 10 * time.Second
			}
			p := pool(t, o)
			began := time.Now()
			_, body, err := get(t, p)
			switch {
			case err == nil:
				t.Fatalf("got an answer: %q", body)
			case tc.want != nil && !errors.Is(err, tc.want), !strings.Contains(err.Error(), tc.says):
				t.Errorf("err = %v, want %v with %q", err, tc.want, tc.says)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			eventually(t, "nothing is in flight", func() bool { return p.Status()[0].InFlight == 0 })
		})
	}
}

func TestUploadIsNotCutWhileBytesFlow(t *testing.T) {
	p := pool(t, hasty(serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})))
	n := 0
	slow := readerFunc(func(p []byte) (int, error) {
		if n++; n > 10 {
			return 0, io.EOF
		}
		time.Sleep(60 * time.Millisecond) // a client on a phone; together far longer than both timeouts
		return copy(p, "x"), nil
	})
	if _, got, err := do(t, p, request(t, http.MethodPost, slow)); err != nil || got != "10" {
		t.Errorf("server read %q, %v, want 10 bytes", got, err)
	}
}

func TestUploadThatTheServerDoesNotTake(t *testing.T) {
	p := pool(t, hasty(raw(t, func(c net.Conn) {
		readHead(c)
		<-t.Context().Done() // and reads no further
	})))
	req := request(t, http.MethodPost, strings.NewReader(strings.Repeat("x", 32<<20)))
	if _, err := p.RoundTrip(req); !errors.Is(err, origin.ErrTimeout) || !strings.Contains(err.Error(), "timeouts.idle") {
		t.Errorf("err = %v, want %v", err, origin.ErrTimeout)
	}
}

func TestUploadThatBreaksIsNotTheServersFault(t *testing.T) {
	gone := errors.New("client has gone")
	overEach(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	}, func(t *testing.T, p *origin.Pool, _ string) {
		for range 10 {
			n := 0
			req := request(t, http.MethodPut, readerFunc(func(p []byte) (int, error) {
				if n++; n > 3 {
					return 0, gone
				}
				return copy(p, "x"), nil
			}))
			if _, err := p.RoundTrip(req); !errors.Is(err, origin.ErrBody) || !errors.Is(err, gone) {
				t.Fatalf("err = %v, want %v", err, origin.ErrBody)
			}
		}
		if !p.Up() {
			t.Error("the server was taken out for what its clients did")
		}
	})
}

func TestSlowReaderIsNotIdle(t *testing.T) {
	p := pool(t, hasty(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 1<<20))
	})))
	resp, err := p.RoundTrip(request(t, http.MethodGet, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(400 * time.Millisecond) // the reader does other things, longer than timeouts.idle
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 1<<20 {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestTalkOneWayKeepsTheOtherOpen: a server that only listens is not idle while the client talks.
func TestTalkOneWayKeepsTheOtherOpen(t *testing.T) {
	overEach(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if r.ProtoMajor == 1 {
			_ = c.EnableFullDuplex()
		}
		c.Flush()
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}, func(t *testing.T, p *origin.Pool, _ string) {
		p.SetIdle(150 * time.Millisecond)
		r, w := io.Pipe()
		resp, err := p.RoundTrip(request(t, http.MethodPost, r))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		go func() {
			defer w.Close()
			for range 10 {
				time.Sleep(50 * time.Millisecond)
				fmt.Fprint(w, "x")
			}
		}()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "10" {
			t.Errorf("got %q, %v, want 10", b, err)
		}
	})
}

// TestConnectionThatGoesSilentIsNotUsedAgain: the path of an established HTTP/2 connection dies without a word,
// as when a NAT forgets it, while new connections work.
func TestConnectionThatGoesSilentIsNotUsedAgain(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	defer srv.Close()
	var conns atomic.Int32
	var frozen atomic.Bool // of the first connection
	path := raw(t, func(c net.Conn) {
		first := conns.Add(1) == 1
		up, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			return
		}
		defer up.Close()
		var back sync.WaitGroup
		back.Go(func() { io.Copy(c, up) })
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			if !first || !frozen.Load() {
				up.Write(buf[:n])
			}
		}
		up.Close()
		back.Wait()
	})
	o := hasty(strings.Replace(path, "http://", "h2c://", 1))
	o.Retries.Max = 0
	p := pool(t, o)
	for range 3 {
		if _, _, err := get(t, p); err != nil {
			t.Fatal(err)
		}
	}
	frozen.Store(true)
	if _, _, err := get(t, p); !errors.Is(err, origin.ErrTimeout) {
		t.Fatalf("over the dead connection: %v, want %v", err, origin.ErrTimeout)
	}
	for range 3 {
		if _, body, err := get(t, p); err != nil || body != "ok" {
			t.Errorf("after it: %q, %v", body, err)
		}
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}
