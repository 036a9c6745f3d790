package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache"
)

// 1,000 clients (200 in a short run) ask for one uncached 1 MiB object whose origin takes 300 ms: the origin is asked once, and every
// client has its first byte before the origin has sent its last. So that a slow machine cannot fail it, the
// origin holds its last bytes back until then.
func TestThunderingHerd(t *testing.T) {
	clients := sized(200, 1000)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var haveFirst sync.WaitGroup
	haveFirst.Add(clients)
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for i := range 10 {
			<-tick.C
			if i == 9 {
				haveFirst.Wait()
			}
			w.Write(body[len(body)*i/10 : len(body)*(i+1)/10])
			w.(http.Flusher).Flush()
		}
	}})
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			first := sync.OnceFunc(haveFirst.Done)
			defer first()
			response, err := e.client.Do(e.request("GET", "/big"))
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			defer response.Body.Close()
			var b [1]byte
			if _, err := io.ReadFull(response.Body, b[:]); err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			first()
			if err := sameBytes(response.Body, body[1:]); err != nil || b[0] != body[0] {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	e.wantAsked(1)
	if a := e.get("/big"); a.body != string(body) || !strings.Contains(a.status(), "hit") {
		t.Errorf("afterwards: %d bytes, Cache-Status %q, want a hit", len(a.body), a.status())
	}
}

func TestFillOutlivesItsFirstClient(t *testing.T) {
	headSent, goOn := make(chan struct{}), make(chan struct{})
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", "10")
		w.Write([]byte("01234"))
		w.(http.Flusher).Flush()
		close(headSent)
		<-goOn
		w.Write([]byte("56789"))
	}})
	ctx, cancel := context.WithCancel(t.Context())
	response, err := e.client.Do(e.request("GET", "/a").WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	<-headSent
	second := make(chan answer)
	go func() { second <- e.get("/a") }()
	cancel()
	response.Body.Close()
	if out := <-e.outcome; out.Reason != cache.ClientGone {
		t.Errorf("first client: %+v, want reason %s", out, cache.ClientGone)
	}
	close(goOn)
	(<-second).want(t, 200, "0123456789", "hit") // of an object that still grew
	e.get("/a").want(t, 200, "0123456789", "hit")
	e.wantAsked(1)
}

func TestFillEndsWhenNobodyWaitsForItsHead(t *testing.T) {
	gone := make(chan struct{})
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(gone)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if response, err := e.client.Do(e.request("GET", "/a").WithContext(ctx)); err == nil {
			response.Body.Close()
		}
	}()
	eventually(t, "origin asked", func() bool { return e.asked.Load() == 1 })
	cancel()
	<-done
	<-gone
}

func TestUncacheableReleasesWaiters(t *testing.T) {
	const clients = 50
	all := make(chan struct{})
	var under atomic.Int64
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		if under.Add(1) == clients+1 {
			close(all) // would never be if they came one after the other
		}
		if r.Header.Get("First") == "" {
			<-all
		}
		w.Header().Set("Cache-Control", "private")
		fmt.Fprint(w, r.Header.Get("Who"))
	}})
	e.get("/a", "First", "yes", "Who", "nobody").want(t, 200, "nobody", "fwd=uri-miss", "detail=private")
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			who := fmt.Sprint("client", i)
			e.get("/a", "Who", who).want(t, 200, who, "detail=private")
		})
	}
	wg.Wait()
	e.wantAsked(clients + 1)
}

// Without the memory of uncacheable keys: those who wait for the first answer are let go by it.
func TestPrivateAnswerIsForItsClientAlone(t *testing.T) {
	release := make(chan struct{})
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.Header().Set("Cache-Control", "private")
		fmt.Fprint(w, r.Header.Get("Who"))
	}})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			who := fmt.Sprint("client", i)
			e.get("/a", "Who", who).want(t, 200, who)
		})
	}
	eventually(t, "origin asked", func() bool { return e.asked.Load() == 1 })
	close(release)
	wg.Wait()
	e.wantAsked(20)
}

func TestTruncatedBodyIsNotStored(t *testing.T) {
	for name, origin := range map[string]http.HandlerFunc{
		"content-length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("some"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"chunked": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Write([]byte("some"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"private": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "private")
			w.Write([]byte("some"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, setup{origin: origin})
			for n := range int64(2) {
				if a := e.get("/a"); a.err == nil {
					t.Errorf("got %d %q as whole", a.StatusCode, a.body)
				}
				e.wantAsked(n + 1)
				if out := <-e.outcome; out.Reason != cache.Truncated {
					t.Errorf("outcome %+v, want reason %s", out, cache.Truncated)
				}
			}
		})
	}
}

func TestBodyLongerThanPromisedIsNotStored(t *testing.T) {
	e := newEdge(t, setup{origin: func(http.ResponseWriter, *http.Request) {}, fetch: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{"Cache-Control": {"max-age=60"}}, ContentLength: 4,
			Body: io.NopCloser(strings.NewReader("longer"))}, nil
	})})
	e.get("/a")
	if n := e.cache.Stats().Objects; n != 0 {
		t.Errorf("%d objects stored", n)
	}
}

func TestLargeBodiesGoThroughUnstored(t *testing.T) {
	body := strings.Repeat("x", 3<<20)
	for name, length := range map[string]string{"known": fmt.Sprint(len(body)), "unknown": ""} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, setup{policy: config.Cache{MaxObject: 1 << 20}, origin: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				io.WriteString(w, body)
			}})
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if a := e.get("/a"); a.err != nil || a.body != body {
						t.Errorf("got %d bytes, error %v", len(a.body), a.err)
					}
				})
			}
			wg.Wait()
			eventually(t, "memory free again", func() bool { return e.cache.Stats().Bytes == 0 })
		})
	}
}

func TestBudgetHoldsWithFillsUnderWay(t *testing.T) {
	const memory = 1 << 20
	e := newEdge(t, setup{memory: memory, origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, strings.Repeat("y", 100<<10))
	}})
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			if s := e.store.Stats(); s.Bytes > memory {
				t.Errorf("%d bytes of %d", s.Bytes, memory)
				return
			}
		}
	}()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 10 {
				if a := e.get(fmt.Sprintf("/%d/%d", i, j)); a.err != nil || len(a.body) != 100<<10 {
					t.Errorf("got %d bytes, error %v", len(a.body), a.err)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	<-watched
}

func TestFirstByteIsTheOrigins(t *testing.T) {
	for _, control := range []string{"max-age=60", "private"} {
		t.Run(control, func(t *testing.T) {
			goOn := make(chan struct{})
			e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", control)
				w.Write([]byte("a"))
				w.(http.Flusher).Flush()
				<-goOn
				w.Write([]byte("b"))
			}})
			response, err := e.client.Do(e.request("GET", "/a"))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			var b [1]byte
			if _, err := io.ReadFull(response.Body, b[:]); err != nil || b[0] != 'a' {
				t.Errorf("got %q, error %v before the origin went on", b, err)
			}
			close(goOn)
			io.Copy(io.Discard, response.Body)
		})
	}
}

func TestEarlyHintsAndTrailers(t *testing.T) {
	const link = "</style.css>; rel=preload"
	e := newEdge(t, setup{origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", link)
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Trailer", "Checksum")
		io.WriteString(w, "body")
		w.Header().Set("Checksum", "abc")
	}})
	for _, c := range []struct {
		status string
		hints  []string
	}{{"stored", []string{"103 " + link}}, {"hit", nil}} {
		var hints []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}}
		r := e.request("GET", "/a")
		a := e.do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		a.want(t, 200, "body", c.status)
		if got := a.Trailer.Get("Checksum"); got != "abc" {
			t.Errorf("%s: trailer %q, want abc", c.status, got)
		}
		if !slices.Equal(hints, c.hints) {
			t.Errorf("%s: interim responses %q, want %q", c.status, hints, c.hints)
		}
		if got := a.Header.Get("Link"); got != link {
			t.Errorf("%s: Link %q, want %q", c.status, got, link)
		}
	}
}

// sameBytes reads r to its end and compares.
func sameBytes(r io.Reader, want []byte) error {
	buf := make([]byte, 32<<10)
	for at := 0; ; {
		n, err := r.Read(buf)
		if at+n > len(want) || !bytes.Equal(buf[:n], want[at:at+n]) {
			return fmt.Errorf("bytes from %d differ from the origin's", at)
		}
		at += n
		switch {
		case err == io.EOF && at < len(want):
			return fmt.Errorf("got %d bytes of %d", at, len(want))
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
