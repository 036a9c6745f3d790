package admin

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard lets through what a program on this machine sends, and keeps out what a web page makes a browser on
// this machine send.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !isLoopbackHost(r.Host):
			// DNS rebinding: the page's own name resolves to loopback, but Host still says the name.
			refuse(w, http.StatusForbidden, "Host must be a loopback address, not "+quote(r.Host))
		case !sameOrigin(r):
			refuse(w, http.StatusForbidden, "requests from web pages elsewhere are refused")
		case r.Method == http.MethodPost && r.Header.Get("Origin") != "" && !isJSON(r):
			refuse(w, http.StatusUnsupportedMediaType, "Content-Type must be application/json")
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			next.ServeHTTP(w, r)
		}
	})
}

// onlyFrom guards the metrics listener by the client's address. It has no Host to check: scrapers come by any name.
func (s *Server) onlyFrom(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !allowed(*s.from.Load(), peer.Addr().Unmap().WithZone("")) {
			refuse(w, http.StatusForbidden, "your address is not in admin.metrics.from")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allowed reports whether the address may ask for metrics; with no list: loopback and private addresses.
func allowed(from []netip.Prefix, addr netip.Addr) bool {
	if len(from) == 0 {
		return addr.IsLoopback() || addr.IsPrivate()
	}
	for _, p := range from {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// isLoopbackHost checks a Host header, with or without a port.
func isLoopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return isLoopbackName(name)
	}
	return isLoopbackName(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

func isLoopbackName(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// sameOrigin accepts requests without Origin (no browser, or its address bar) and those of a page of ours.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin) // an opaque origin is the word null, which has no host
	return err == nil && u.Scheme == "http" && u.Host == r.Host
}

func isJSON(r *http.Request) bool {
	mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && mt == "application/json"
}
