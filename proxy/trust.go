package proxy

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/nearzone/nearzone/config"
)

// trust is whom to believe about the client.
type trust struct {
	proxies     []netip.Prefix // their X-Forwarded-*, Forwarded and X-Request-ID
	proxyHeader []netip.Prefix // their PROXY protocol header
	hop         hopKey         // other nodes of the fleet
}

func newTrust(cfg *config.Config) trust {
	return trust{cfg.Listen.Trust.Proxies, cfg.Listen.Trust.ProxyProtocol, hopKey(cfg.Fleet.Key.Value())}
}

func (t *trust) isProxy(a netip.Addr) bool          { return within(t.proxies, a) }
func (t *trust) sendsProxyHeader(a netip.Addr) bool { return within(t.proxyHeader, a) }

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// clientOf is the client's address by X-Forwarded-For: the last one in it that is no trusted proxy. peer is who
// sent the request, and the answer when the field says nothing usable.
func (t *trust) clientOf(h http.Header, peer netip.Addr) netip.Addr {
	client := peer
	lines := h["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		for rest := lines[i]; rest != ""; {
			var last string
			if j := strings.LastIndexByte(rest, ','); j >= 0 {
				rest, last = rest[:j], rest[j+1:]
			} else {
				rest, last = "", rest
			}
			a, ok := parseForwardedAddr(strings.TrimSpace(last))
			if !ok {
				return client
			}
			if client = a; !t.isProxy(a) {
				return client
			}
		}
	}
	return client
}

// parseForwardedAddr reads an address with or without port and brackets.
func parseForwardedAddr(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return a.Unmap().WithZone(""), err == nil
}

// schemeOf is the scheme a trusted proxy says the client used, or otherwise.
func schemeOf(h http.Header, otherwise string) string {
	lines := h["X-Forwarded-Proto"]
	if len(lines) == 0 {
		return otherwise
	}
	said := lines[len(lines)-1]
	if i := strings.LastIndexByte(said, ','); i >= 0 {
		said = said[i+1:]
	}
	switch said = strings.ToLower(strings.TrimSpace(said)); said {
	case "http", "https":
		return said
	}
	return otherwise
}
