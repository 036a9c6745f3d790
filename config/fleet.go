package config

import (
	"errors"
	"net/mail"
	"net/netip"
	"net/url"
)

func (f *Fleet) shape() mapping {
	hub := list[string]{into: &f.Hub, item: func(s *string) shape { return dialAddr(s) }}
	word := scalar{"auto, or a list of host:port", func(s string) error {
		if s != auto {
			return errors.New("is no list")
		}
		f.Hub = nil
		return nil
	}, object{"enum": []any{auto}}}
	return mapping{
		key("listen", listenAddr(&f.Listen), "Only nodes of home listen; without key on loopback alone."),
		key("hub", byKind{want: "auto, or a list of host:port", scalar: word, list: hub}, "Hub nodes; auto: the nodes of home at listen's port."),
		notYet("credentials"),
		notYet("nats"),
		key("key", secretShape{&f.Key}, "The secret that every node has; mTLS is derived from it."),
	}
}

func (t *TLS) shape() shape {
	certificates := list[Certificate]{into: &t.Certificates, item: func(c *Certificate) shape { return c.shape() }}
	keys := mapping{
		key("certificates", certificates, "PEM files, reloaded on change; the first is for clients that name no host."),
		key("acme", acmeShape{&t.ACME}, "Ordered for the hosts of all sites."),
		key("self_signed", boolean(&t.SelfSigned), "A certificate made at start, for trials."),
	}
	return then{keys, func(d *decoder, n *node) {
		given := 0
		for _, has := range []bool{len(t.Certificates) > 0, t.ACME != nil, t.SelfSigned} {
			if has {
				given++
			}
		}
		if given > 1 {
			d.report(n, "has more than one source: want one of certificates, acme and self_signed")
		}
	}}
}

func (c *Certificate) shape() mapping {
	return mapping{
		must("cert", fileName(&c.Cert, "a PEM file"), "PEM file of the certificate and its chain."),
		must("key", fileName(&c.Key, "a PEM file"), "PEM file of its key."),
	}
}

// acmeShape makes the ACME it reads into.
type acmeShape struct{ into **ACME }

func (a acmeShape) read(d *decoder, n *node) {
	acme := defaultACME()
	acme.shape().read(d, n)
	*a.into = &acme
}

func (a acmeShape) schema() object {
	acme := defaultACME()
	return acme.shape().schema()
}

func (a *ACME) shape() mapping {
	return mapping{
		key("email", value(&a.Email, "an address such as ops@example.com", matching(`[^@ ]+@[^@ ]+`), parseEmail), "Where the CA writes to."),
		key("ca", value(&a.CA, "letsencrypt, letsencrypt-staging or an https directory URL", object{"type": "string"}, parseCA), "Who signs."),
		key("roots", fileName(&a.Roots, "a PEM file"), "PEM file of roots for the CA's own certificate, instead of the system's."),
	}
}

func (a *Admin) shape() mapping {
	return mapping{
		key("listen", listenAddr(&a.Listen), "API and metrics, on loopback only; off: none."),
		notYet("remote"),
		key("metrics", a.Metrics.shape(), "A second listener with /metrics, /livez and /readyz alone."),
	}
}

func (m *AdminMetrics) shape() mapping {
	from := list[netip.Prefix]{into: &m.From, least: 1, item: func(p *netip.Prefix) shape { return prefix(p) }}
	return mapping{
		key("listen", listenAddr(&m.Listen), "off: none."),
		key("from", from, "Who may ask; default loopback and private addresses."),
	}
}

func (l *Log) shape() mapping {
	return mapping{
		key("access", orOffWord(&l.Access), "stdout, stderr, off, or a file; JSON lines."),
		key("client", choice[string]{into: &l.Client, words: []string{"full", "prefix", "none"}}, "The client's address: full, /24 or /48, or none."),
		key("level", choice[string]{into: &l.Level, words: []string{"debug", "info", "warn", "error"}}, "Of the log; requests go to access."),
	}
}

// orOffWord is where the access log goes; false is off.
func orOffWord(into *string) scalar {
	s := text(into, "stdout, stderr, off, or a file")
	store := s.store
	s.store = func(v string) error {
		if v == "false" {
			v = "off"
		}
		return store(v)
	}
	return s
}

func parseEmail(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s {
		return "", errors.New("is not an e-mail address")
	}
	return s, nil
}

func parseCA(s string) (string, error) {
	switch s {
	case "letsencrypt", "letsencrypt-staging":
		return s, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", errors.New("is no certificate authority")
	}
	return s, nil
}
