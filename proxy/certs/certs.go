// Package certs holds the certificates of the HTTP edge: from PEM files, ordered by ACME, or made at start for a trial.
//
// It answers one question, which certificate a ClientHello gets, and keeps the answer fresh: files are read again when
// they change, ACME certificates are renewed. It does not terminate TLS and opens no listener; ACME's challenges are
// answered through the listeners of the proxy.
//
//	c, err := certs.New(cfg, certs.Options{Log: log})
//	server := &http.Server{TLSConfig: c.TLSConfig()}
//	plain := &http.Server{Handler: c.HTTPChallenge(site)}
//	go c.Run(ctx)
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
)

// pollEvery is how often certificate files are looked at. A tool that renews them need not tell us.
const pollEvery = 10 * time.Second

// acmeALPN is the protocol of TLS-ALPN-01, RFC 8737 section 3.
const acmeALPN = "acme-tls/1"

// Options are what a Certs needs beside its configuration.
type Options struct {
	Log *slog.Logger          // default slog.Default()
	Reg prometheus.Registerer // default none
}

// Certs chooses certificates. Its methods may be called from many goroutines.
type Certs struct {
	log     *slog.Logger
	metrics *metrics
	quiet   quiet

	table   atomic.Pointer[table]
	serving atomic.Pointer[acme] // nil until Run has started it, and without ACME
	changed chan struct{}        // a new table waits for Run to look at it

	mu  sync.Mutex // guards cfg, and the change of table
	cfg *config.Config
}

// table is what is served now; immutable.
type table struct {
	files    []*pair
	byName   map[string][]*tls.Certificate // certificates from files; wildcards under "*.…"
	trial    *tls.Certificate              // self-signed, for every host that nothing else covers
	fallback *tls.Certificate              // without SNI, or for unknown names when any is taken; nil: ACME's first
	hosts    map[string]bool               // of all sites; wildcards under "*.…"
	any      bool                          // a site takes "*"
	acme     *acmePlan                     // nil without
}

// New reads and checks all that the configuration names, without the network. A missing file, a key that does not
// belong to its certificate, or a host that ACME cannot certify is an error; a certificate that has expired or does not
// cover a host is a warning in the log, because the others still serve.
func New(cfg *config.Config, o Options) (*Certs, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	c := &Certs{log: o.Log, metrics: newMetrics(o.Reg), cfg: cfg, changed: make(chan struct{}, 1)}
	t, err := c.build(cfg)
	if err != nil {
		return nil, err
	}
	c.use(t)
	return c, nil
}

// Reload builds what cfg wants. apply puts it in place, for handshakes from then on, and cannot fail.
func (c *Certs) Reload(cfg *config.Config) (apply func(), err error) {
	t, err := c.build(cfg)
	if err != nil {
		return nil, err
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cfg = cfg
		c.use(t)
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}, nil
}

// Run watches the files and looks after ACME's certificates until ctx ends. Start it when the proxy's listeners are
// bound: where they are not, certmagic binds their ports itself for the time of a challenge.
func (c *Certs) Run(ctx context.Context) error {
	var running *acme
	defer func() {
		if running != nil {
			c.serving.Store(nil)
			running.stop()
		}
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		running = c.supervise(ctx, running)
		if running != nil {
			running.observe()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		case <-tick.C:
			c.poll()
		}
	}
}

// supervise makes what runs be what the table wants. A new one answers before the old one ends.
func (c *Certs) supervise(ctx context.Context, running *acme) *acme {
	plan := c.table.Load().acme
	if running != nil && plan.same(running.plan) {
		return running
	}
	var next *acme
	if plan != nil {
		next = startACME(ctx, plan, c.log, c.metrics)
	}
	c.serving.Store(next)
	if running != nil {
		running.stop()
	}
	return next
}

// TLSConfig is a configuration for a server, which follows every reload. HTTP/2, HTTP/1.1 and ACME's challenge are
// offered; a caller may change what it likes but GetCertificate. Session tickets are per configuration: make one and
// share it.
func (c *Certs) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", acmeALPN},
		GetCertificate: c.certificate,
	}
}

// HTTPChallenge answers HTTP-01 challenges of orders under way and gives every other request to next.
func (c *Certs) HTTPChallenge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
			if a := c.serving.Load(); a != nil && a.issuer.HandleHTTPChallenge(w, r) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// certificate chooses by SNI. No certificate and no error makes crypto/tls send the alert unrecognized_name.
func (c *Certs) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeALPN {
		return c.challenge(hello)
	}
	t := c.table.Load()
	name := strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	if name == "" {
		return c.defaultOf(t, hello)
	}
	if cert := pick(t.byName[name], hello); cert != nil {
		return cert, nil
	}
	if cert := pick(t.byName[wildcard(name)], hello); cert != nil {
		return cert, nil
	}
	if t.acme != nil && t.acme.has(name) {
		return c.ordered(t, name, hello)
	}
	switch {
	case t.trial != nil && (t.hosts[name] || t.hosts[wildcard(name)]):
		return t.trial, nil
	case t.any:
		return c.defaultOf(t, hello)
	}
	c.metrics.refused.WithLabelValues("unknown_name").Inc()
	return nil, nil
}

// pick prefers what the client can use, so that an ECDSA and an RSA certificate may stand side by side.
func pick(certs []*tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	for _, cert := range certs {
		if hello.SupportsCertificate(cert) == nil {
			return cert
		}
	}
	if len(certs) > 0 {
		return certs[0]
	}
	return nil
}

func (c *Certs) defaultOf(t *table, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if t.fallback != nil {
		return t.fallback, nil
	}
	if t.acme == nil {
		return nil, nil
	}
	return c.ordered(t, t.acme.hosts[0], hello)
}

// ordered serves an ACME certificate. Until there is one, the name's handshakes fail, and the log says so at times.
func (c *Certs) ordered(t *table, name string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	err := errors.New("the node is starting")
	if a := c.serving.Load(); a != nil {
		var cert *tls.Certificate
		if cert, err = a.certificate(name, hello); err == nil {
			return cert, nil
		}
	}
	if t.trial != nil {
		return t.trial, nil
	}
	c.metrics.refused.WithLabelValues("no_certificate_yet").Inc()
	if c.quiet.may(name, time.Now()) {
		c.log.Warn("no certificate yet, handshakes fail", "host", name, "ca", t.acme.directory, "err", err)
	}
	return nil, fmt.Errorf("no certificate for %q yet", name)
}

func (c *Certs) challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if a := c.serving.Load(); a != nil {
		return a.magic.GetCertificateWithContext(hello.Context(), hello)
	}
	return nil, nil
}

// quiet lets one line a minute through for each name. Names are those of sites, so that they are few.
type quiet struct {
	mu   sync.Mutex // guards last
	last map[string]time.Time
}

func (q *quiet) may(name string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.last[name]) < time.Minute {
		return false
	}
	if q.last == nil {
		q.last = map[string]time.Time{}
	}
	q.last[name] = now
	return true
}
