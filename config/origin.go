package config

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func originsShape(into *[]Origin) shape {
	return named[Origin]{into: into, name: nounName, fresh: defaultOrigin, item: func(o *Origin) shape { return o.shape() }}
}

func (o *Origin) shape() mapping {
	return mapping{
		key("servers", serversShape(&o.Servers), "URLs, or host:port for streams; or lists of them by zone, of which a node's own comes first."),
		notYet("paths"),
		notYet("s3"),
		key("check", o.Check.union(), "The active health check; default: a TCP connection."),
		key("balance", o.Balance.shape(), "How servers are picked."),
		key("host", value(&o.Host, "preserve, or a host name", object{"type": "string"}, parseHostHeader), "The Host that servers see; preserve: the client's."),
		key("tls", o.TLS.shape(), "How https servers are spoken to."),
		key("timeouts", o.Timeouts.shape(), "Bounds of each phase of a request."),
		key("retries", o.Retries.shape(), "Of idempotent requests, on another server."),
		key("via", nounRef(&o.Via, "the name of a zone"), "Zone whose edge a miss asks first: one fill for the fleet."),
	}
}

func serversShape(into *[]Server) shape {
	return byKind{
		want:    "a list of servers, or a mapping from zones to such lists",
		list:    list[Server]{into: into, least: 1, item: func(s *Server) shape { return s.shape() }},
		mapping: serversByZone{into},
	}
}

func (s *Server) shape() scalar {
	want := `a URL such as "https://10.0.1.20:8443" (http, https, h2c), or "host:port" for streams`
	return value(s, want, object{"type": "string"}, func(text string) (Server, error) {
		server, err := parseServer(text)
		server.Zone = s.Zone
		return server, err
	})
}

// serversByZone is a mapping from zones to lists of servers.
type serversByZone struct{ into *[]Server }

func (s serversByZone) read(d *decoder, n *node) {
	for _, e := range n.entries {
		var here []Server
		fresh := func() Server { return Server{Zone: e.key} }
		list[Server]{into: &here, least: 1, fresh: fresh, item: func(s *Server) shape { return s.shape() }}.read(d, e)
		*s.into = append(*s.into, here...)
	}
	if len(n.entries) == 0 {
		d.report(n, "is empty: want at least one server")
	}
}

func (s serversByZone) schema() object {
	var one Server
	return object{"type": "object", "additionalProperties": object{"type": "array", "items": one.shape().schema(), "minItems": 1}}
}

func parseServer(s string) (Server, error) {
	if !strings.Contains(s, "://") {
		host, port, err := splitHostPort(s, 1)
		if err == nil && !isHost(host) {
			err = errors.New("has no host before the port")
		}
		return Server{Host: strings.ToLower(host), Port: port}, err
	}
	u, err := url.Parse(s)
	if err != nil {
		return Server{}, errors.New("is not a URL")
	}
	if err := plainURL(u); err != nil {
		return Server{}, err
	}
	port, err := serverPort(u)
	return Server{Scheme: u.Scheme, Host: strings.ToLower(u.Hostname()), Port: port}, err
}

// plainURL refuses whatever a server's URL has no use for.
func plainURL(u *url.URL) error {
	switch {
	case u.Scheme == "tcp" || u.Scheme == "udp":
		return errors.New("has a scheme that servers of streams do not need")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c":
		return errors.New("has an unknown scheme")
	case u.User != nil:
		return errors.New("has a user name, which would be shown")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("has a path, which comes from the request")
	case !isHost(u.Hostname()):
		return errors.New("has no host")
	}
	return nil
}

func serverPort(u *url.URL) (uint16, error) {
	switch {
	case u.Port() == "" && u.Scheme == "https":
		return 443, nil
	case u.Port() == "":
		return 80, nil
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("has no port from 1 to 65535")
	}
	return uint16(n), nil
}

// union is the mapping, or off.
func (c *Check) union() shape {
	off := scalar{"off, or a mapping", func(s string) error {
		if s != "off" && s != "false" {
			return errors.New("is no check")
		}
		*c = Check{Off: true}
		return nil
	}, object{"enum": []any{"off", false}}}
	return byKind{want: "off, or a mapping with http or tcp", scalar: off, mapping: c.shape()}
}

func (c *Check) shape() shape {
	keys := mapping{
		key("http", value(&c.HTTP, "a path such as /healthz", matching(`/.*`), parsePlainPath), "Path asked with GET; 2xx and 3xx pass."),
		key("tcp", boolean(&c.TCP), "A connection is enough."),
		notYet("udp"),
		key("every", duration(&c.Every, 100*time.Millisecond, time.Hour), "Time between checks."),
		key("timeout", duration(&c.Timeout, 10*time.Millisecond, time.Minute), "When a check has failed."),
		key("rise", integer(&c.Rise, 1, 100), "Checks passed in a row until a server is up."),
		key("fall", integer(&c.Fall, 1, 100), "Checks failed in a row until a server is down."),
	}
	return then{keys, func(d *decoder, n *node) {
		if c.HTTP != "" && c.TCP {
			d.report(n.at("tcp"), "http is given too: want one of http and tcp")
		}
	}}
}

// parsePlainPath is a path with an optional query, as it stands in a request line.
func parsePlainPath(s string) (string, error) {
	if !strings.HasPrefix(s, "/") {
		return "", errors.New("does not begin with /")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }) {
		return "", errors.New("has signs that no request line may have")
	}
	return s, nil
}

func (b *Balance) shape() shape {
	want := "least_requests, round_robin, hash(cookie:NAME), hash(header:NAME) or hash(client)"
	json := matching(`least_requests|round_robin|hash\((cookie:.+|header:.+|client)\)`)
	return value(b, want, json, parseBalance)
}

func parseBalance(s string) (Balance, error) {
	switch p := BalancePolicy(s); p {
	case LeastRequests, RoundRobin:
		return Balance{Policy: p}, nil
	}
	inner, isHash := strings.CutPrefix(s, "hash(")
	inner, closed := strings.CutSuffix(inner, ")")
	if !isHash || !closed {
		return Balance{}, errors.New("is no balancing policy")
	}
	by, name, hasName := strings.Cut(inner, ":")
	switch {
	case by == "client" && !hasName:
		return Balance{Policy: PolicyHash, By: by}, nil
	case (by == "cookie" || by == "header") && isToken(name):
		return Balance{Policy: PolicyHash, By: by, Key: name}, nil
	case by == "cookie" || by == "header":
		return Balance{}, errors.New("lacks the name to hash by")
	}
	return Balance{}, errors.New("cannot be hashed by that")
}

// isToken accepts the token of RFC 9110 §5.6.2: names of headers and cookies.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r > 126 || !isNameByte(byte(r)) && !strings.ContainsRune("!#$%&'*+.^`|~", r)
	})
}

func parseHostHeader(s string) (string, error) {
	if s == "preserve" {
		return s, nil
	}
	if host, port, err := splitHostPort(s, 1); err == nil && isHost(host) {
		return strings.ToLower(host) + ":" + strconv.Itoa(int(port)), nil
	}
	return parseHostname(s)
}

func (t *OriginTLS) shape() shape {
	keys := mapping{
		key("server_name", hostname(&t.ServerName), "Name sent and verified; default: the server's host."),
		key("ca", fileName(&t.CA, "a PEM file"), "PEM file of roots, instead of the system's."),
		key("cert", fileName(&t.Cert, "a PEM file"), "PEM file of our client certificate."),
		key("key", fileName(&t.Key, "a PEM file"), "PEM file of its key."),
		key("verify", boolean(&t.Verify), "false takes any certificate: anyone on the way can read and change."),
	}
	return then{keys, func(d *decoder, n *node) {
		switch {
		case t.Cert == "" && t.Key != "" || t.Cert != "" && t.Key == "":
			d.report(n, "has one of cert and key: want both")
		case !t.Verify && t.CA != "":
			d.report(n.at("verify"), "is false, so that ca is never looked at: want one of them")
		case !t.Verify:
			d.warn(n.at("verify"), "servers are not verified: anyone on the way can read and change what they send")
		}
	}}
}

func (t *OriginTimeouts) shape() mapping {
	return mapping{
		key("connect", duration(&t.Connect, time.Millisecond, time.Hour), "Until connected, TLS included."),
		key("first_byte", duration(&t.FirstByte, time.Millisecond, day), "From the request's last byte to the response's head."),
		key("idle", duration(&t.Idle, time.Millisecond, day), "No byte of a body in either direction."),
	}
}

func (r *Retries) shape() mapping {
	return mapping{
		key("max", integer(&r.Max, 0, 10), "Further servers asked."),
		key("budget", percent(&r.Budget), "Share of the requests of the last 10 s; at least 3 a second."),
	}
}
