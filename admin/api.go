package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxLogged bytes of a request are logged.
const maxLogged = 1 << 10

// api is the handlers over the hooks.
type api struct {
	hooks   Hooks
	metrics http.Handler
	log     *slog.Logger
}

// routes is the door.
func (a *api) routes() http.Handler {
	mux := a.metricsRoutes()
	mux.HandleFunc("GET /v1/status", a.status)
	mux.HandleFunc("GET /v1/zones", a.zones)
	mux.HandleFunc("GET /v1/explain", a.explain)
	mux.HandleFunc("POST /v1/purge", a.purge)
	mux.HandleFunc("POST /v1/drain", a.drain)
	mux.HandleFunc("POST /v1/reload", a.reload)
	return mux
}

// metricsRoutes is what the metrics listener has, and the door too.
func (a *api) metricsRoutes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", a.live)
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", a.metrics)
	mux.HandleFunc("/", notFound)
	return mux
}

// exposition is /metrics. Scrapes gather under a lock, so a few at a time are enough for anyone.
func exposition(g prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 8,
		Timeout:             writeTimeout / 2,
	})
}

// live says that the process answers at all.
func (a *api) live(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready says whether traffic may come here.
func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	if a.hooks.Ready != nil {
		if err := a.hooks.Ready(); err != nil {
			refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (a *api) status(w http.ResponseWriter, _ *http.Request) { a.show(w, a.hooks.Status) }

func (a *api) zones(w http.ResponseWriter, _ *http.Request) { a.show(w, a.hooks.Zones) }

func (a *api) show(w http.ResponseWriter, hook func() any) {
	if hook == nil {
		notHere(w)
		return
	}
	reply(w, http.StatusOK, hook())
}

func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	if a.hooks.Explain == nil {
		notHere(w)
		return
	}
	q := r.URL.Query()
	if q.Get("client") == "" {
		refuse(w, http.StatusBadRequest, "client is missing: ask /v1/explain?client=ADDRESS&name=NAME")
		return
	}
	finish(w)(a.hooks.Explain(q.Get("name"), q.Get("client")))
}

func (a *api) purge(w http.ResponseWriter, r *http.Request) {
	if a.hooks.Purge == nil {
		notHere(w)
		return
	}
	var body map[string]json.RawMessage
	raw, ok := readJSON(w, r, &body)
	if !ok {
		return
	}
	if len(body) == 0 {
		refuse(w, http.StatusBadRequest, "the body says nothing to purge: send a JSON object with url, prefix, host or tag")
		return
	}
	a.log.Info("purge asked for", "client", r.RemoteAddr, "purge", string(raw[:min(len(raw), maxLogged)]))
	finish(w)(a.hooks.Purge(r.Context(), raw))
}

func (a *api) drain(w http.ResponseWriter, r *http.Request) {
	if a.hooks.Drain == nil {
		notHere(w)
		return
	}
	var body struct {
		Target string `json:"target"`
		Undo   bool   `json:"undo"`
	}
	if _, ok := readJSON(w, r, &body); !ok {
		return
	}
	if body.Target == "" {
		refuse(w, http.StatusBadRequest, `target is missing: send {"target": "ZONE or NODE", "undo": false}`)
		return
	}
	a.log.Info("drain asked for", "client", r.RemoteAddr, "target", body.Target, "undo", body.Undo)
	finish(w)(a.hooks.Drain(r.Context(), body.Target, body.Undo))
}

// reload has no body to read, and outlives the impatience of its caller: it is all or nothing.
func (a *api) reload(w http.ResponseWriter, r *http.Request) {
	if a.hooks.Reload == nil {
		notHere(w)
		return
	}
	a.log.Info("reload asked for", "client", r.RemoteAddr)
	finish(w)(map[string]string{"status": "reloaded"}, a.hooks.Reload())
}

// readJSON reads one JSON value into v, refusing keys that v does not have. It has answered when ok is false.
func readJSON(w http.ResponseWriter, r *http.Request, v any) (raw json.RawMessage, ok bool) {
	raw, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		refuse(w, http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.Itoa(maxBody)+" bytes")
		return nil, false
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body could not be read: "+err.Error())
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		refuse(w, http.StatusBadRequest, "the body is not the JSON object expected: "+err.Error())
		return nil, false
	}
	if _, err := dec.Token(); err != io.EOF {
		refuse(w, http.StatusBadRequest, "the body has more than one JSON value")
		return nil, false
	}
	return raw, true
}

// finish answers with what a hook returned.
func finish(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		switch {
		case err == nil:
			reply(w, http.StatusOK, v)
		case errors.Is(err, ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
			refuse(w, http.StatusServiceUnavailable, err.Error())
		default:
			refuse(w, http.StatusBadRequest, err.Error())
		}
	}
}

// failure is the body of every error.
type failure struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, code int, text string) { reply(w, code, failure{text}) }

func notHere(w http.ResponseWriter) {
	refuse(w, http.StatusNotImplemented, "this node does not do that")
}

func notFound(w http.ResponseWriter, r *http.Request) {
	refuse(w, http.StatusNotFound, "no such path: "+r.Method+" "+quote(r.URL.Path))
}

// reply writes v as indented JSON, for people with curl.
func reply(w http.ResponseWriter, code int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		code = http.StatusInternalServerError
		body.Reset()
		_ = enc.Encode(failure{"the answer cannot be written as JSON: " + err.Error()})
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

// quote shows a stranger's text safely and shortly.
func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strconv.Quote(s)
}
