package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// originDelay is what the example origin waits before it answers: the way to a Region and back.
const originDelay = 60 * time.Millisecond

// exampleOrigin is the backend "in the Region".
type exampleOrigin struct {
	listener net.Listener
	requests atomic.Int64
}

func listenOrigin() (*exampleOrigin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the example origin: %w", err)
	}
	return &exampleOrigin{listener: l}, nil
}

func (o *exampleOrigin) url() string { return "http://" + o.listener.Addr().String() }
func (o *exampleOrigin) close()      { o.listener.Close() }

func (o *exampleOrigin) run(ctx context.Context) error {
	server := &http.Server{Handler: o.handler(), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(o.listener) }()
	<-ctx.Done()
	server.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (o *exampleOrigin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/api/time", o.slowly(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintln(w, time.Now().Format(time.RFC3339Nano))
	}))
	mux.HandleFunc("/", o.slowly(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("Surrogate-Key", "demo")
		fmt.Fprintf(w, "Hello from the Region: %s, made at %s\n", r.URL.Path, time.Now().Format("15:04:05.000"))
	}))
	return mux
}

func (o *exampleOrigin) slowly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o.requests.Add(1)
		select {
		case <-r.Context().Done():
		case <-time.After(originDelay):
			next(w, r)
		}
	}
}
