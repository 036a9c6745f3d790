package lane_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/proxy/lane"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is a net/http server behind the gate that notes each request it sees.
type edge struct {
	addr string
	mu   sync.Mutex
	seen []string // "METHOD target bodylength", or with !error when the body could not be read
}

func (e *edge) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string{}, e.seen...)
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	line := fmt.Sprintf("%s %s %d", r.Method, r.RequestURI, len(body))
	if err != nil {
		line += " !" + err.Error()
	}
	e.mu.Lock()
	e.seen = append(e.seen, line)
	e.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s\n", line)
}

// serve starts an edge; handler nil is the edge itself.
func serve(t *testing.T, o lane.Options, handler http.Handler) *edge {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{addr: ln.Addr().String()}
	if handler == nil {
		handler = e
	}
	gate := lane.NewGate(o)
	srv := &http.Server{Handler: handler, ConnState: gate.ConnState, IdleTimeout: time.Minute, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(o.H2C)
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(gate.Listener(ln))
	}()
	t.Cleanup(func() { srv.Close(); <-done })
	return e
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

// answers reads responses until the server closes, and lists their status codes.
func answers(c net.Conn) string {
	br := bufio.NewReader(c)
	var codes []string
	for {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return strings.Join(codes, " ")
		}
		codes = append(codes, fmt.Sprint(res.StatusCode))
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
