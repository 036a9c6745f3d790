// Package admin is the operator's door of one node: an HTTP API on loopback, the metrics, and the two health
// answers that load balancers and container runtimes ask for.
//
// It decides nothing itself. What stands behind each path is a func in [Hooks], joined in cmd/nearzone. It
// shows no secret, because it is never given one.
//
// The door has no password: it listens on loopback, answers only requests that name loopback in Host (so that
// a web page cannot reach it by DNS rebinding) and refuses those a foreign page has sent (Origin). Whoever
// can open a connection to loopback may operate the node.
//
//	srv, err := admin.Listen(cfg.Admin, hooks, registry, admin.Options{Log: log, Reg: registry})
//	err = srv.Run(ctx)
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
)

// Hooks are what the paths do. A nil hook answers 501.
//
// An error of a hook is shown to the caller as it is, with status 400; one that wraps [ErrUnavailable] with 503.
type Hooks struct {
	Status  func() any                                                       // GET /v1/status
	Ready   func() error                                                     // GET /readyz; nil, or a nil error, is ready
	Purge   func(ctx context.Context, body json.RawMessage) (any, error)     // POST /v1/purge; body is a JSON object
	Drain   func(ctx context.Context, target string, undo bool) (any, error) // POST /v1/drain {"target", "undo"}
	Explain func(name, client string) (any, error)                           // GET /v1/explain?name=&client=
	Reload  func() error                                                     // POST /v1/reload
	Zones   func() any                                                       // GET /v1/zones
}

// ErrUnavailable marks errors of hooks that are no fault of the request: it may succeed later.
var ErrUnavailable = errors.New("unavailable")

// Options are optional, all of them.
type Options struct {
	Listen func(network, address string) (net.Listener, error) // default net.Listen
	Log    *slog.Logger                                        // default slog.Default()
	Reg    prometheus.Registerer                               // nil: the door itself is not counted
}

// Server is the bound door. Its zero value is of no use; see [Listen].
type Server struct {
	log   *slog.Logger
	cfg   config.Admin
	from  atomic.Pointer[[]netip.Prefix] // of the metrics listener
	doors []door
}

// door is one listener with what answers on it.
type door struct {
	ln  net.Listener
	srv *http.Server
}

// A request has these long, and no longer. Answers are small; the slowest is a profile-sized /metrics over a
// bad link.
const (
	headTimeout  = 5 * time.Second
	readTimeout  = 10 * time.Second
	writeTimeout = time.Minute
	idleTimeout  = time.Minute
	stopTimeout  = 2 * time.Second // for requests under way when Run's context ends
	maxHead      = 16 << 10
	maxBody      = 1 << 20
)

// Listen binds the door, and the metrics listener when cfg has one. It serves nothing until Run.
//
// cfg.Listen must be a loopback address; anything else is an error. An empty cfg.Listen binds no door.
func Listen(cfg config.Admin, h Hooks, g prometheus.Gatherer, o Options) (*Server, error) {
	if o.Listen == nil {
		o.Listen = net.Listen
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Server{log: o.Log, cfg: cfg}
	s.from.Store(&cfg.Metrics.From)

	m := newMetrics(o.Reg)
	a := &api{hooks: h, metrics: exposition(g, o.Log), log: o.Log}
	if cfg.Listen != "" {
		if err := mustBeLoopback(cfg.Listen); err != nil {
			return nil, err
		}
		if err := s.bind(o, "admin.listen", cfg.Listen, m.count("api", guard(a.routes()))); err != nil {
			return nil, err
		}
	}
	if cfg.Metrics.Listen != "" {
		h := m.count("metrics", s.onlyFrom(a.metricsRoutes()))
		if err := s.bind(o, "admin.metrics.listen", cfg.Metrics.Listen, h); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// bind opens one listener. key is the configuration's name for the address.
func (s *Server) bind(o Options, key, address string, h http.Handler) error {
	ln, err := o.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %q: %w; choose another address, or stop what holds it", key, address, err)
	}
	s.doors = append(s.doors, door{ln: ln, srv: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}})
	return nil
}

// mustBeLoopback accepts loopback addresses and the name localhost.
func mustBeLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("admin.listen: %q: %w; write it as 127.0.0.1:9180", address, err)
	}
	if !isLoopbackName(host) {
		return fmt.Errorf("admin.listen: %q is not loopback, and the door has no password; use 127.0.0.1:9180, and admin.metrics.listen for metrics", address)
	}
	return nil
}

// Addr is where the door listens, or nil when it has none.
func (s *Server) Addr() net.Addr { return s.addr(s.cfg.Listen != "", 0) }

// MetricsAddr is where the metrics listener listens, or nil when there is none.
func (s *Server) MetricsAddr() net.Addr { return s.addr(s.cfg.Metrics.Listen != "", len(s.doors)-1) }

func (s *Server) addr(bound bool, i int) net.Addr {
	if !bound {
		return nil
	}
	return s.doors[i].ln.Addr()
}

// Run serves until ctx ends and every request under way has ended, or has been cut after two seconds.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, len(s.doors))
	for _, d := range s.doors {
		go func() { failed <- d.srv.Serve(d.ln) }()
	}
	var err error
	waiting := len(s.doors)
	select {
	case <-ctx.Done():
	case err = <-failed:
		waiting--
	}
	s.shutdown()
	for range waiting {
		<-failed
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

// shutdown lets requests end for a moment, then cuts them.
func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, d := range s.doors {
		if d.srv.Shutdown(ctx) != nil {
			_ = d.srv.Close()
		}
		_ = d.ln.Close() // when Serve was never reached
	}
}

// close gives the listeners back before anything was served.
func (s *Server) close() {
	for _, d := range s.doors {
		_ = d.ln.Close()
	}
}

// Reload takes over who may ask for metrics. The addresses themselves are bound for the life of the process:
// a changed one is an error.
func (s *Server) Reload(cfg *config.Config) (apply func(), err error) {
	next := cfg.Admin
	if next.Listen != s.cfg.Listen {
		return nil, fmt.Errorf("admin.listen: changed from %q to %q: this needs a restart", s.cfg.Listen, next.Listen)
	}
	if next.Metrics.Listen != s.cfg.Metrics.Listen {
		return nil, fmt.Errorf("admin.metrics.listen: changed from %q to %q: this needs a restart", s.cfg.Metrics.Listen, next.Metrics.Listen)
	}
	return func() { s.from.Store(&next.Metrics.From) }, nil
}
