package config

import "slices"

// resolve fills in the defaults that depend on other keys.
func (c *Config) resolve(d *decoder, root *node) {
	if c.Home == "" {
		if z := find(c.Zones, func(z *Zone) bool { return z.IsRegion() }); z != nil {
			c.Home = z.Name
		}
	}
	for i := range c.Streams {
		if idle := &c.Streams[i].Idle; idle.Established == 0 {
			idle.Established = establishedIdle(c.Streams[i].Network)
		}
	}
	for i := range c.Origins {
		c.resolveCheck(&c.Origins[i])
	}
	c.resolveDNS()
	c.resolveFleet(d, root)
}

// resolveCheck picks the check of an origin that names none: a connection, unless nothing but UDP goes there.
func (c *Config) resolveCheck(o *Origin) {
	if o.Check.Off || o.Check.HTTP != "" || o.Check.TCP {
		return
	}
	o.Check.TCP = !c.onlyUDP(o.Name)
	o.Check.Off = !o.Check.TCP
}

func (c *Config) onlyUDP(origin string) bool {
	udp := false
	for _, s := range c.Streams {
		if s.Origin == origin && s.Network != "udp" {
			return false
		}
		udp = udp || s.Origin == origin
	}
	return udp
}

func (c *Config) resolveDNS() {
	s := &c.DNS
	if s.Servers == nil && c.Home != "" {
		s.Servers = []string{c.Home}
	}
	if s.Servers == nil {
		s.Servers = names(c.Zones, func(z *Zone) string { return z.Name })
	}
	c.steerSites()
	for i := range s.Names {
		c.resolveName(&s.Names[i])
	}
}

// steerSites makes the site hosts under our domains names, and lets a name without serves find its site.
func (c *Config) steerSites() {
	for i := range c.Sites {
		for _, h := range c.Sites[i].Hosts {
			if domainOf(c.DNS.Domains, h) == "" {
				continue
			}
			n := find(c.DNS.Names, func(n *Name) bool { return n.Name == h })
			switch {
			case n == nil:
				n := defaultName(h)
				n.Site = c.Sites[i].Name
				c.DNS.Names = append(c.DNS.Names, n)
			case n.Site == "" && n.Stream == "":
				n.Site = c.Sites[i].Name
			}
		}
	}
}

func (c *Config) resolveName(n *Name) {
	if n.Steer == "" {
		n.Steer = c.Routing.Steer
	}
	if n.Zones == nil {
		n.Zones = names(c.Zones, func(z *Zone) string { return z.Name })
	}
	if n.Measure != "" {
		return
	}
	n.Measure = MeasureZone
	site := c.Site(n.Site)
	if n.Stream != "" || site != nil && site.Routes[len(site.Routes)-1].Cache.Off {
		n.Measure = MeasureToOrigin
	}
}

// resolveFleet keeps a fleet without a key on loopback.
func (c *Config) resolveFleet(d *decoder, root *node) {
	if c.Fleet.Key.File != "" || c.Fleet.Key.Env != "" || c.Fleet.Listen == "" {
		return
	}
	host, port, err := splitHostPort(c.Fleet.Listen, 0)
	if err != nil || isLoopback(host) {
		return
	}
	if listen := root.at("fleet", "listen"); host != "" && listen.key == "listen" {
		d.warn(listen, "without fleet.key the fleet listens on loopback only")
	}
	loopback := "127.0.0.1"
	if self := c.Self(); self != nil && self.first().IsLoopback() {
		loopback = self.first().String()
	}
	c.Fleet.Listen = hostPort(loopback, port)
}

// hosts lists the hosts of all sites, once each.
func (c *Config) hosts() []string {
	var out []string
	for _, s := range c.Sites {
		for _, h := range s.Hosts {
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}
