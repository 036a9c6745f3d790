package config

import "net/netip"

func (l *Listen) shape() mapping {
	return mapping{
		key("http", listenAddr(&l.HTTP), "HTTP/1.1, and HTTP/2 with prior knowledge; off: none."),
		key("https", listenAddr(&l.HTTPS), "HTTP/1.1 and HTTP/2 over TLS; needs tls."),
		notYet("http3"),
		key("trust", l.Trust.shape(), "Who may say the client's address."),
	}
}

func (t *Trust) shape() mapping {
	return mapping{
		key("proxies", prefixes(&t.Proxies), "Peers whose X-Forwarded-For is believed."),
		key("proxy_protocol", prefixes(&t.ProxyProtocol), "Peers that must open with a PROXY protocol header."),
	}
}

func prefixes(into *[]netip.Prefix) shape {
	return list[netip.Prefix]{into: into, item: func(p *netip.Prefix) shape { return prefix(p) }}
}
