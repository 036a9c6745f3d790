package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nearzone/nearzone/config"
)

// build reads all that cfg names into a table. It changes nothing.
func (c *Certs) build(cfg *config.Config) (*table, error) {
	files, err := readPairs(cfg.TLS.Certificates)
	if err != nil {
		return nil, err
	}
	return assemble(cfg, files, c.table.Load())
}

// assemble makes a table; old is nil at start, and keeps its trial certificate where the hosts are the same.
func assemble(cfg *config.Config, files []*pair, old *table) (*table, error) {
	t := &table{files: files, byName: map[string][]*tls.Certificate{}, hosts: map[string]bool{}}
	for _, p := range files {
		for _, name := range p.names() {
			t.byName[name] = append(t.byName[name], p.cert)
		}
	}
	hosts := hostsOf(cfg)
	for _, h := range hosts {
		t.any = t.any || h == "*"
		t.hosts[h] = true
	}
	if len(files) > 0 {
		t.fallback = files[0].cert
	}
	var err error
	switch {
	case !cfg.TLS.SelfSigned:
	case old != nil && old.trial != nil && maps.Equal(old.hosts, t.hosts):
		t.trial = old.trial
	default:
		if t.trial, err = selfSigned(hosts, time.Now()); err != nil {
			return nil, err
		}
	}
	if cfg.TLS.ACME != nil {
		if t.acme, err = planACME(cfg, uncovered(hosts, t)); err != nil {
			return nil, err
		}
	}
	if t.fallback == nil && t.acme == nil {
		t.fallback = t.trial
	}
	if t.fallback == nil && t.acme == nil && cfg.Listen.HTTPS != "" {
		return nil, errors.New("tls: listen.https needs a certificate: name files in tls.certificates, set tls.acme, or tls.self_signed for a trial")
	}
	return t, nil
}

// hostsOf lists every host of every site once, in the order of the file.
func hostsOf(cfg *config.Config) []string {
	var hosts []string
	for _, s := range cfg.Sites {
		for _, h := range s.Hosts {
			h = strings.TrimSuffix(strings.ToLower(h), ".")
			if !slices.Contains(hosts, h) {
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

// uncovered are the hosts that no file has a certificate for.
func uncovered(hosts []string, t *table) []string {
	return slices.DeleteFunc(slices.Clone(hosts), func(h string) bool {
		return len(t.byName[h])+len(t.byName[wildcard(h)]) > 0
	})
}

// wildcard is the pattern that covers a name, RFC 6125 section 6.4.3: one label, the leftmost.
func wildcard(name string) string {
	if _, parent, ok := strings.Cut(name, "."); ok {
		return "*." + parent
	}
	return ""
}

// use puts a table in place, with mu held or before anyone else knows of c, and says what is wrong with it.
func (c *Certs) use(t *table) {
	c.table.Store(t)
	c.metrics.expiry.Reset()
	now := time.Now()
	for _, p := range t.files {
		leaf := p.cert.Leaf
		c.metrics.expiry.WithLabelValues(p.names()[0]).Set(float64(leaf.NotAfter.Unix()))
		switch {
		case now.After(leaf.NotAfter):
			c.log.Warn("certificate has expired", "file", p.files.Cert, "expired", leaf.NotAfter)
		case now.Before(leaf.NotBefore):
			c.log.Warn("certificate is not valid yet", "file", p.files.Cert, "from", leaf.NotBefore)
		}
	}
	if t.acme != nil || t.trial != nil {
		return
	}
	for _, h := range uncovered(hostsOf(c.cfg), t) {
		if h != "*" {
			c.log.Warn("no certificate covers a site's host, its handshakes fail", "host", h)
		}
	}
}

// poll reads the files again when one has changed. A damaged one keeps what is served, and is said once.
func (c *Certs) poll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.table.Load()
	files, changed := slices.Clone(t.files), false
	for i, p := range files {
		next, err := p.refresh()
		if err != nil {
			c.metrics.fileErrors.Inc()
			c.log.Warn("certificate file has changed and is not usable, the old one is kept", "file", p.files.Cert, "err", err)
		}
		changed = changed || next != p
		files[i] = next
	}
	if !changed {
		return
	}
	next, err := assemble(c.cfg, files, t)
	if err != nil { // the new files cover other hosts, and ACME cannot take over
		c.metrics.fileErrors.Inc()
		c.log.Warn("certificate files have changed and do not fit the sites, the old ones are kept", "err", err)
		c.keepStamps(t, files)
		return
	}
	c.log.Info("certificate files read again")
	c.use(next)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// keepStamps remembers that these files were looked at, with the old certificates.
func (c *Certs) keepStamps(t *table, looked []*pair) {
	kept := *t
	kept.files = nil
	for i, p := range t.files {
		kept.files = append(kept.files, &pair{files: p.files, cert: p.cert, stamp: looked[i].stamp})
	}
	c.table.Store(&kept)
}

func wrapKey(i int, err error) error { return fmt.Errorf("tls.certificates[%d]: %w", i, err) }
