package config

import "slices"

// checkServers checks what the DNS answers for, and where.
func (d *decoder) checkServers(c *Config, root *node) {
	n := root.get("dns")
	if n == nil {
		return
	}
	for i, s := range c.DNS.Servers {
		if n.get("servers") == nil && c.Zone(s) == nil {
			continue // from home, where its error was reported
		}
		if d.refer(n.at("servers", i), "zone", s, c.zoneNames()) && len(c.Zone(s).Nodes) == 0 {
			d.warn(n.at("servers", i), "%s has no nodes: its name server has no address", quote(s))
		}
	}
	for i, domain := range c.DNS.Domains {
		if slices.Contains(c.DNS.Domains[:i], domain) {
			d.report(n.at("domains", i), "is given twice")
		}
	}
	if len(c.DNS.Domains) == 0 && c.DNS.Listen != "" && !d.domainsBroken {
		d.report(n, "domains is missing: want the domains delegated to us, such as [edge.example.com]")
	}
	if len(c.DNS.Domains) > 0 && c.DNS.Listen == "" && !someZoneAnswers(root) {
		d.warn(n, "listen is not set: nobody answers for %s", c.DNS.Domains[0])
	}
	if len(c.DNS.Names) > 0 && len(c.Zones) == 0 {
		d.warn(n, "zones is empty: there is no address to answer with")
	}
}

// someZoneAnswers reports whether an overlay turns DNS on.
func someZoneAnswers(root *node) bool {
	zones := root.get("zones")
	return zones != nil && slices.ContainsFunc(zones.entries, func(z *node) bool {
		return z.get("set").get("dns").get("listen") != nil
	})
}

func (d *decoder) checkNames(c *Config, root *node) {
	entries := map[string]*node{}
	if n := root.get("dns").get("names"); n != nil {
		for _, e := range n.entries {
			if name := canonical(e.key); entries[name] == nil {
				entries[name] = e
			} else {
				d.report(e, "is %s again: want one entry a name", name)
			}
		}
	}
	for i := range c.DNS.Names {
		if n := entries[c.DNS.Names[i].Name]; n != nil {
			d.checkName(c, &c.DNS.Names[i], n)
		}
	}
}

// checkName checks a name that the file has an entry for; one that comes from a site's host needs none of it.
func (d *decoder) checkName(c *Config, name *Name, n *node) {
	homeless := domainOf(c.DNS.Domains, name.Name) == ""
	if homeless && !d.domainsBroken {
		d.report(n, "is under none of dns.domains%s", instead("", c.DNS.Domains))
	}
	for i, z := range name.Zones {
		d.refer(n.at("zones", i), "zone", z, c.zoneNames())
	}
	switch {
	case name.Site == "" && name.Stream == "" && homeless: // so that no site was looked for
	case name.Site == "" && name.Stream == "":
		d.report(n, "serves is missing, and no site has this host: want sites.NAME or streams.NAME")
	case name.Site != "":
		d.refer(n.at("serves"), "site", name.Site, names(c.Sites, func(s *Site) string { return s.Name }))
	default:
		d.refer(n.at("serves"), "stream", name.Stream, names(c.Streams, func(s *Stream) string { return s.Name }))
	}
}

func (d *decoder) checkRecords(c *Config, root *node) {
	types := map[string][]string{} // by owner
	for _, r := range c.DNS.Records {
		types[r.Name] = append(types[r.Name], r.Type)
	}
	for _, r := range c.DNS.Records {
		n := d.records[recordKey{r.Name, r.Type}]
		d.checkRecord(c, r, n)
		if r.Type == "CNAME" && len(types[r.Name]) > 1 {
			d.report(n, "stands beside other records of %s: a CNAME must be alone (RFC 1034 §3.6.2)", r.Name)
		}
	}
}

func (d *decoder) checkRecord(c *Config, r Record, n *node) {
	apex := slices.Contains(c.DNS.Domains, r.Name)
	steered := c.Name(r.Name) != nil
	switch {
	case r.Type == "CNAME" && len(r.Values) > 1:
		d.report(n, "has %d values: a CNAME has one", len(r.Values))
	case apex && r.Type == "CNAME":
		d.report(n, "stands at a domain, which has SOA and NS: a CNAME must be alone (RFC 1034 §3.6.2)")
	case apex && r.Type == "NS":
		d.report(n, "stands at a domain: its name servers are the nodes of dns.servers")
	case steered && slices.Contains([]string{"A", "AAAA", "CNAME", "NS"}, r.Type):
		d.report(n, "%s is a steered name, whose addresses are those of nodes: want one of both", r.Name)
	case apex && r.Type == "MX":
		d.warn(n, "%s has mail on it: a domain delegated to us should not be one that mail is sent to", r.Name)
	}
}
