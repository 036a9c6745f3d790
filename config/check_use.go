package config

import (
	"regexp"
	"slices"
)

// checkUse warns of what a file has and nobody can use, and of a file that makes a node do nothing.
func (d *decoder) checkUse(c *Config, root *node) {
	dns := c.DNS.Listen != "" && len(c.DNS.Domains) > 0
	switch {
	case len(c.Sites) == 0 && len(c.Streams) == 0 && !dns:
		if !someZoneSets(root, "sites", "streams", "dns") {
			d.warnAt(position{}, "", "nothing to do: want listen, origins and sites (or streams, or dns)")
		}
	case len(c.Sites) > 0 && c.Listen.HTTP == "" && c.Listen.HTTPS == "":
		if !someZoneSets(root, "listen") {
			d.warn(root.at("sites"), "are served nowhere: want listen.http or listen.https")
		}
	}
	if !someZoneSets(root, "sites", "dns") {
		d.checkDomains(c, root.at("dns", "domains"))
	}
	d.checkZoneName(c, root)
}

// someZoneSets reports whether an overlay has one of the keys.
func someZoneSets(root *node, keys ...string) bool {
	zones := root.get("zones")
	return zones != nil && slices.ContainsFunc(zones.entries, func(z *node) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return z.get("set").get(key) != nil })
	})
}

// checkDomains finds domains that we answer for without a name to steer. One with static records alone may stand
// beside others.
func (d *decoder) checkDomains(c *Config, n *node) {
	for i, domain := range c.DNS.Domains {
		named := slices.ContainsFunc(c.DNS.Names, func(n Name) bool { return domainOf(c.DNS.Domains, n.Name) == domain })
		static := slices.ContainsFunc(c.DNS.Records, func(r Record) bool { return domainOf(c.DNS.Domains, r.Name) == domain })
		if domain != "" && !named && (!static || len(c.DNS.Names) == 0) {
			d.warn(n.at(i), "no name under it is steered: want a site with a host such as play.%s, or an entry in dns.names", domain)
		}
	}
}

// zoneID is how AWS identifies zones beside their names: usw2-lax1-az1, usw2-az1.
var zoneID = regexp.MustCompile(`^[a-z]{2,6}[0-9]+-([a-z]{3}[0-9]+-)?az[0-9]+$`)

// zoneGroup is what AWS calls the Local Zones of one place: us-west-2-lax-1.
var zoneGroup = regexp.MustCompile(`^[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}-[a-z]{3}-[0-9]{1,2}$`)

// checkZoneName looks at a zone that no zones say anything about.
func (d *decoder) checkZoneName(c *Config, root *node) {
	if len(c.Zones) > 0 {
		return
	}
	p := position{}
	if n := root.get("node").get("zone"); n != nil && n.text == c.Node.Zone {
		p = n.where()
	}
	switch zone := c.Node.Zone; {
	case zoneID.MatchString(zone):
		d.warnAt(p, "node.zone", "%s is the id of a zone: want its name, such as us-west-2-lax-1a", quote(zone))
	case zoneGroup.MatchString(zone):
		d.warnAt(p, "node.zone", "%s is a group of zones: want one of them, such as %sa", quote(zone), zone)
	}
}
