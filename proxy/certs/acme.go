package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/nearzone/nearzone/config"
)

const (
	// renewCheck is how often certificates in memory are looked at. It costs nothing, and certificates of minutes,
	// from a private CA, are renewed in time.
	renewCheck = 10 * time.Second
	// orderAgain is the wait after certmagic has given up on a host, which takes it 30 days, or could not start.
	orderAgain = time.Minute
)

// acmePlan is what is to be ordered, where and how; immutable.
type acmePlan struct {
	hosts     []string
	directory string
	email     string
	roots     *x509.CertPool // nil: the system's
	rootsPEM  string
	storage   string
	http, tls address // of the proxy's listeners; port 0 without one
}

type address struct {
	host string
	port int
}

// planACME checks the settings. Hosts are those that no file covers.
func planACME(cfg *config.Config, hosts []string) (*acmePlan, error) {
	p := &acmePlan{email: cfg.TLS.ACME.Email, storage: filepath.Join(cfg.Node.Data, "certs")}
	if cfg.Node.Data == "" {
		return nil, errors.New("tls.acme: set node.data to a directory for the certificates")
	}
	var err error
	if p.hosts, err = orderable(cfg, hosts); err != nil {
		return nil, err
	}
	if len(p.hosts) == 0 {
		return nil, nil
	}
	if p.directory, err = directory(cfg.TLS.ACME.CA); err != nil {
		return nil, err
	}
	if err := p.readRoots(cfg.TLS.ACME.Roots); err != nil {
		return nil, err
	}
	p.http, p.tls = addressOf(cfg.Listen.HTTP), addressOf(cfg.Listen.HTTPS)
	return p, nil
}

// orderable are the hosts that HTTP-01 and TLS-ALPN-01 can prove.
func orderable(cfg *config.Config, hosts []string) ([]string, error) {
	var wanted []string
	for _, h := range hosts {
		switch {
		case h == "*":
			continue // whoever asks by another name gets the default certificate
		case strings.HasPrefix(h, "*."):
			return nil, fmt.Errorf("tls.acme: host %q needs a wildcard certificate, which only the DNS-01 challenge gives; that is not in this version: put a certificate for it in tls.certificates, or name its hosts", h)
		case !certmagic.SubjectQualifiesForPublicCert(h) && cfg.TLS.ACME.Roots == "":
			return nil, fmt.Errorf("tls.acme: no public CA certifies host %q: put a certificate for it in tls.certificates", h)
		}
		wanted = append(wanted, h)
	}
	if len(wanted) == 0 && len(hosts) > 0 && len(cfg.TLS.Certificates) == 0 && !cfg.TLS.SelfSigned {
		return nil, errors.New(`tls.acme: no site names a host to order a certificate for ("*" is none)`)
	}
	return wanted, nil
}

func directory(ca string) (string, error) {
	switch ca {
	case "", "letsencrypt":
		return certmagic.LetsEncryptProductionCA, nil
	case "letsencrypt-staging":
		return certmagic.LetsEncryptStagingCA, nil
	}
	if u, err := url.Parse(ca); err != nil || u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("tls.acme.ca: %q: want letsencrypt, letsencrypt-staging or the https URL of a directory", ca)
	}
	return ca, nil
}

func (p *acmePlan) readRoots(file string) error {
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("tls.acme.roots: %w", err)
	}
	p.roots, p.rootsPEM = x509.NewCertPool(), string(pem)
	if !p.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls.acme.roots: no certificate in %q", file)
	}
	return nil
}

func addressOf(listen string) address {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return address{}
	}
	n, _ := strconv.Atoi(port) // config has checked it; a name of a port is left to certmagic's default
	return address{host, n}
}

func (p *acmePlan) has(name string) bool { return slices.Contains(p.hosts, name) }

func (p *acmePlan) same(o *acmePlan) bool {
	if p == nil || o == nil {
		return p == o
	}
	return slices.Equal(p.hosts, o.hosts) && p.directory == o.directory && p.email == o.email &&
		p.rootsPEM == o.rootsPEM && p.storage == o.storage && p.http == o.http && p.tls == o.tls
}

// acme is certmagic at work on one plan: a cache and a configuration of its own, nothing of the package's globals.
type acme struct {
	plan    *acmePlan
	log     *slog.Logger
	metrics *metrics
	cache   *certmagic.Cache
	magic   *certmagic.Config
	issuer  *certmagic.ACMEIssuer
	cancel  context.CancelFunc
	working sync.WaitGroup
}

// startACME loads what is on disk, then orders what is missing in the background.
func startACME(ctx context.Context, p *acmePlan, log *slog.Logger, m *metrics) *acme {
	ctx, cancel := context.WithCancel(ctx)
	a := &acme{plan: p, log: log, metrics: m, cancel: cancel}
	logger := zapTo(log)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		RenewCheckInterval: renewCheck,
		Logger:             logger,
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: p.storage}, Logger: logger,
		DefaultServerName: p.hosts[0], OnEvent: a.event,
	})
	a.issuer = certmagic.NewACMEIssuer(a.magic, certmagic.ACMEIssuer{
		CA: p.directory, Email: p.email, Agreed: true, TrustedRoots: p.roots, Logger: logger,
		DisableHTTPChallenge: p.http == address{}, DisableTLSALPNChallenge: p.tls == address{},
		AltHTTPPort: p.http.port, AltTLSALPNPort: p.tls.port, ListenHost: p.tls.host,
	})
	a.magic.Issuers = []certmagic.Issuer{a.issuer}
	for _, host := range p.hosts {
		if _, err := a.load(ctx, host); err == nil {
			continue
		}
		a.working.Go(func() { a.manage(ctx, host) })
	}
	return a
}

// stop ends orders under way, and certmagic's goroutine.
func (a *acme) stop() {
	a.cancel()
	a.working.Wait()
	a.cache.Stop()
}

// manage orders a host's first certificate. From then on certmagic's cache renews it.
func (a *acme) manage(ctx context.Context, host string) {
	for ctx.Err() == nil {
		err := a.magic.ObtainCertAsync(ctx, host)
		if err == nil {
			if _, err = a.load(ctx, host); err == nil {
				a.log.Info("certificate obtained", "host", host, "ca", a.plan.directory)
				return
			}
			a.forget(ctx, host)
		}
		if ctx.Err() != nil {
			return
		}
		a.log.Warn("certificate not obtained", "host", host, "ca", a.plan.directory, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(orderAgain):
		}
	}
}

// load takes a certificate from disk into the cache. What is damaged there is removed, to be ordered anew.
func (a *acme) load(ctx context.Context, host string) (certmagic.Certificate, error) {
	cert, err := a.magic.CacheManagedCertificate(ctx, host)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			a.log.Warn("stored certificate is not usable and ordered anew", "host", host, "err", err)
			a.forget(ctx, host)
		}
		return cert, err
	}
	return cert, nil
}

// observe notes when the certificates in memory expire, renewed ones included.
func (a *acme) observe() {
	for _, host := range a.plan.hosts {
		for _, cert := range a.cache.AllMatchingCertificates(host) {
			a.metrics.expiry.WithLabelValues(host).Set(float64(cert.Leaf.NotAfter.Unix()))
		}
	}
}

func (a *acme) forget(ctx context.Context, host string) {
	key := certmagic.StorageKeys.CertsSitePrefix(a.issuer.IssuerKey(), host)
	if err := a.magic.Storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("stored certificate is not removed", "host", host, "err", err)
	}
}

// certificate is the host's, for a client that asked for it, for no host, or for one that is not ours.
func (a *acme) certificate(host string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName != host {
		asked := *hello
		asked.ServerName = host
		hello = &asked
	}
	return a.magic.GetCertificateWithContext(hello.Context(), hello)
}

// event counts orders.
func (a *acme) event(_ context.Context, name string, _ map[string]any) error {
	switch name {
	case "cert_failed":
		a.metrics.orders.WithLabelValues("failed").Inc()
	case "cert_obtained":
		a.metrics.orders.WithLabelValues("obtained").Inc()
	}
	return nil
}
