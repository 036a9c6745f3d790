package fleet

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// bridge is the NATS server's logger. What NATS calls a notice is of no use to our operator and goes to debug; what
// strangers can cause, by connecting, is bounded.
type bridge struct {
	log     *slog.Logger
	metrics *metrics
	limit   *rate.Limiter

	mu    sync.Mutex // guards what follows
	last  string     // the last error or warning since the link was good
	death string     // the first fatal one of this start
	store string     // why the logs took no entry; empty while they do
}

func newBridge(log *slog.Logger, m *metrics) *bridge {
	return &bridge{log: log, metrics: m, limit: rate.NewLimiter(1, 20)}
}

// Noticef also carries why a connection ended, which is all that NATS says of a hub that hangs up.
func (b *bridge) Noticef(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	b.log.Debug("nats", "text", text)
	if strings.HasSuffix(text, "connection closed: TLS Handshake Failure") {
		b.metrics.tlsErrors.Inc()
	}
	if strings.Contains(text, "Leafnode connection closed") {
		b.remember(text)
	}
}

func (b *bridge) Debugf(format string, v ...any) { b.debug(format, v) }
func (b *bridge) Tracef(format string, v ...any) { b.debug(format, v) }
func (b *bridge) Warnf(format string, v ...any)  { b.warn(format, v) }
func (b *bridge) Errorf(format string, v ...any) { b.warn(format, v) }

// Fatalf does not end the process: start looks for it.
func (b *bridge) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.death == "" {
		b.death = text
	}
}

func (b *bridge) debug(format string, v []any) {
	b.log.Debug("nats", "text", fmt.Sprintf(format, v...))
}

func (b *bridge) warn(format string, v []any) {
	text := fmt.Sprintf(format, v...)
	b.remember(text)
	if storeFailed(text) {
		b.setStore(text)
	}
	if b.limit.Allow() {
		b.log.Warn("fleet", "reason", text)
	}
}

// storeFailed knows what NATS says when a disk would not take an entry. It says so in no other way.
func storeFailed(text string) bool {
	return strings.HasPrefix(text, "JetStream failed to store a msg") || strings.HasSuffix(text, "will be DISABLED") ||
		strings.Contains(text, "disabling JetStream")
}

func (b *bridge) setStore(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.store = text
}

func (b *bridge) storeError() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store
}

func (b *bridge) remember(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = text
}

// clear forgets what was wrong with the link.
func (b *bridge) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = ""
}

// revive forgets what was wrong with the server, before it is started again.
func (b *bridge) revive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.death, b.store = "", ""
}

func (b *bridge) fatal() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.death
}

// reason is the best explanation at hand of why there is no link.
func (b *bridge) reason() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.death != "":
		return b.death
	case b.last != "":
		return b.last
	}
	return "no hub node has answered yet"
}
