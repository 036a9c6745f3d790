package dnsserver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/nearzone/nearzone/config"
)

// recordTypes may be in dns.records, with how a value looks.
var recordTypes = map[string]string{
	"A":     "192.0.2.1",
	"AAAA":  "2001:db8::1",
	"CNAME": "www.example.com",
	"TXT":   "v=spf1 -all",
	"MX":    "10 mail.example.com",
	"CAA":   `0 issue "letsencrypt.org"`,
	"SRV":   "10 5 443 host.example.com",
	"NS":    "ns.example.net",
}

// parseRecord makes the resource records of one entry. Names in values are absolute, with or without a final dot.
func parseRecord(name string, r config.Record) ([]dns.RR, error) {
	typ := strings.ToUpper(r.Type)
	form, ok := recordTypes[typ]
	if !ok {
		return nil, fmt.Errorf("dns.records: %s: unknown type %q (A, AAAA, CNAME, TXT, MX, CAA, SRV and NS are known)", r.Name, r.Type)
	}
	var list []dns.RR
	for _, value := range r.Values {
		rr, err := parseValue(name, typ, value)
		if err != nil {
			return nil, fmt.Errorf("dns.records: %s %s %q: %w; write it as %s", r.Name, typ, value, err, form)
		}
		rr.Header().Ttl = seconds(r.TTL)
		if !slices.ContainsFunc(list, func(old dns.RR) bool { return dns.IsDuplicate(old, rr) }) {
			list = append(list, rr)
		}
	}
	return list, nil
}

func parseValue(name, typ, value string) (dns.RR, error) {
	if strings.ContainsAny(value, "\r\n") {
		return nil, fmt.Errorf("a value is one line")
	}
	if typ == "TXT" && !strings.HasPrefix(value, `"`) {
		return &dns.TXT{Hdr: header(name, dns.TypeTXT, 0), Txt: txtStrings(value)}, nil
	}
	rr, err := dns.NewRR(". 0 IN " + typ + " " + value)
	if err != nil {
		return nil, fmt.Errorf("not a value of this type")
	}
	if rr == nil || rr.Header().Rrtype != dns.StringToType[typ] {
		return nil, fmt.Errorf("empty")
	}
	if a, ok := rr.(*dns.AAAA); ok && a.AAAA.To4() != nil {
		return nil, fmt.Errorf("an IPv4 address")
	}
	// Packed once here, so that no answer can fail to be.
	if _, err := dns.PackRR(rr, make([]byte, dns.MaxMsgSize), 0, nil, false); err != nil {
		return nil, err
	}
	rr.Header().Name = name
	return rr, nil
}

// txtStrings cuts a text into strings of the 255 bytes that one may have (RFC 1035 §3.3.14), escaped as the
// library wants them.
func txtStrings(text string) (list []string) {
	for {
		piece := text[:min(255, len(text))]
		list = append(list, strings.ReplaceAll(piece, `\`, `\\`))
		if text = text[len(piece):]; text == "" {
			return list
		}
	}
}
