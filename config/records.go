package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// recordType checks and tidies the values of one type. Names in values are whole names.
type recordType struct {
	name  string
	want  string
	parse func(string) (string, error)
}

func recordTypes() []recordType {
	return []recordType{
		{"A", "an IPv4 address", parseRecordA},
		{"AAAA", "an IPv6 address", parseRecordAAAA},
		{"CNAME", "a whole name such as app.example.net", parseTarget},
		{"TXT", "text of at most 4000 bytes", parseTXT},
		{"MX", "a preference and a whole name, such as 10 mail.example.com", fields("n t")},
		{"CAA", `flags, tag and value, such as 0 issue "letsencrypt.org"`, parseCAA},
		{"SRV", "priority, weight, port and a whole name, such as 0 5 5060 sip.example.com", fields("n n n t")},
		{"NS", "a whole name such as ns1.example.net", parseTarget},
	}
}

// recordsShape is dns.records: owners, then types, then values or {ttl, values}. The domains have been read before.
type recordsShape struct{ dns *DNS }

func (s recordsShape) read(d *decoder, n *node) {
	if n.kind == kindScalar || n.kind == kindList {
		d.report(n, "%s is not a mapping: want owners, and types under them", n.describe())
		return
	}
	for _, owner := range n.entries {
		name, err := s.absolute(owner.key)
		if d.domainsBroken {
			name, err = canonical(owner.key), nil
		}
		switch {
		case err != nil:
			d.failAt(owner.keyPos, owner.path(), "%v", err)
		case owner.kind != kindMapping:
			d.report(owner, "%s is not a mapping: want types such as TXT, and values under them", owner.describe())
		default:
			s.owner(d, owner, name)
		}
	}
}

func (s recordsShape) owner(d *decoder, n *node, name string) {
	types := recordTypes()
	if d.records == nil {
		d.records = map[recordKey]*node{}
	}
	for _, e := range n.entries {
		t := find(types, func(t *recordType) bool { return t.name == e.key })
		if t == nil {
			d.failAt(e.keyPos, e.path(), "unknown type%s", instead(e.key, names(types, func(t *recordType) string { return t.name })))
			continue
		}
		r := Record{Name: name, Type: t.name, TTL: staticTTL}
		if d.records[recordKey{name, t.name}] != nil {
			d.failAt(e.keyPos, e.path(), "%s has %s twice: want one list of values", name, t.name)
			continue
		}
		d.records[recordKey{name, t.name}] = e
		r.shape(*t).read(d, e)
		s.dns.Records = append(s.dns.Records, r)
	}
}

// absolute is the whole name of an owner: @ is the domain, a name under a domain is whole, any other is under the
// only domain.
func (s recordsShape) absolute(owner string) (string, error) {
	name := canonical(owner)
	if domainOf(s.dns.Domains, name) != "" {
		return name, ownerName(name)
	}
	if len(s.dns.Domains) == 0 {
		return "", errors.New("has no domain to be under: want dns.domains")
	}
	if strings.HasSuffix(owner, ".") {
		return "", fmt.Errorf("%s is under none of the domains%s", quote(owner), instead(owner, s.dns.Domains))
	}
	if len(s.dns.Domains) != 1 {
		return "", fmt.Errorf("%s is under one of %d domains: write the whole name%s", quote(owner), len(s.dns.Domains), instead(owner, s.dns.Domains))
	}
	if owner == "@" {
		return s.dns.Domains[0], nil
	}
	name += "." + s.dns.Domains[0]
	return name, ownerName(name)
}

// domainOf is the longest of domains that name is in, or nothing.
func domainOf(domains []string, name string) string {
	best := ""
	for _, d := range domains {
		if (name == d || strings.HasSuffix(name, "."+d)) && len(d) > len(best) {
			best = d
		}
	}
	return best
}

func (r *Record) shape(t recordType) shape {
	values := list[string]{into: &r.Values, least: 1, item: func(s *string) shape {
		return value(s, t.want, object{"type": []string{"string", "number", "boolean"}}, t.parse)
	}}
	return byKind{
		want: "a list of values, or {ttl: …, values: […]}",
		list: values,
		mapping: mapping{
			key("ttl", duration(&r.TTL, time.Second, 7*day), "Lifetime; default 5m."),
			must("values", values, "The values."),
		},
	}
}

func (s recordsShape) schema() object {
	types := object{}
	for _, t := range recordTypes() {
		var r Record
		types[t.name] = r.shape(t).schema()
	}
	owner := object{"type": "object", "properties": types, "additionalProperties": false}
	return object{"type": []string{"object", "null"}, "additionalProperties": owner}
}

func parseRecordA(s string) (string, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return "", errors.New("is not an IPv4 address")
	}
	return a.String(), nil
}

func parseRecordAAAA(s string) (string, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return "", errors.New("is not an IPv6 address")
	}
	return a.String(), nil
}

func parseTarget(s string) (string, error) {
	name := canonical(s)
	switch {
	case !isHostname(name):
		return "", errors.New("is not a name")
	case !strings.Contains(name, "."):
		return "", errors.New("is not a whole name")
	}
	return name, nil
}

func parseTXT(s string) (string, error) {
	if len(s) > 4000 {
		return "", errors.New("is too long")
	}
	return s, nil
}

// fields checks values of numbers (n) and a target (t), which may be the root: no such service (RFC 7505, RFC 2782).
func fields(layout string) func(string) (string, error) {
	kinds := strings.Fields(layout)
	return func(s string) (string, error) {
		parts := strings.Fields(s)
		if len(parts) != len(kinds) {
			return "", fmt.Errorf("has not %d fields", len(kinds))
		}
		for i, kind := range kinds {
			if kind == "n" {
				if _, err := strconv.ParseUint(parts[i], 10, 16); err != nil {
					return "", fmt.Errorf("has %s where a number up to 65535 stands", quote(parts[i]))
				}
				continue
			}
			target, err := parseTarget(parts[i])
			if err != nil && parts[i] != "." {
				return "", fmt.Errorf("has %s, which %w", quote(parts[i]), err)
			}
			if err == nil {
				parts[i] = target
			}
		}
		return strings.Join(parts, " "), nil
	}
}

// parseCAA checks flags, tag and value (RFC 8659 §4.1.1).
func parseCAA(s string) (string, error) {
	parts := strings.SplitN(strings.TrimSpace(s), " ", 3)
	if len(parts) != 3 {
		return "", errors.New("has not three fields")
	}
	if _, err := strconv.ParseUint(parts[0], 10, 8); err != nil {
		return "", fmt.Errorf("has flags %s, which are no number up to 255", quote(parts[0]))
	}
	if parts[1] == "" || strings.ContainsFunc(parts[1], func(r rune) bool { return r > 'z' || !isNameByte(byte(r)) || r == '-' || r == '_' }) {
		return "", fmt.Errorf("has tag %s, which is not all letters and digits", quote(parts[1]))
	}
	v := strings.TrimSpace(parts[2])
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = v[1 : len(v)-1]
	}
	if strings.ContainsAny(v, `"\`) {
		return "", errors.New("has a quotation mark or backslash inside its value")
	}
	return parts[0] + " " + parts[1] + ` "` + v + `"`, nil
}
