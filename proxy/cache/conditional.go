package cache

import (
	"net/http"
	"slices"
	"strings"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

// notModified reports whether the client already has what h and status describe (RFC 9110 §13.2.2):
// If-None-Match first, If-Modified-Since only without it.
func notModified(request http.Header, status int, h http.Header) bool {
	if status != http.StatusOK {
		return false
	}
	if lines := request["If-None-Match"]; len(lines) > 0 {
		return etagListed(lines, only(h, "Etag"))
	}
	since, ok := dateIn(request, "If-Modified-Since")
	if !ok || len(request["If-Modified-Since"]) > 1 {
		return false
	}
	// RFC 9111 §4.3.2: without Last-Modified, Date serves.
	for _, name := range []string{"Last-Modified", "Date"} {
		if modified, ok := dateIn(h, name); ok {
			return !modified.After(since)
		}
	}
	return false
}

// etagListed compares weakly, as If-None-Match does (RFC 9110 §13.1.2).
func etagListed(lines []string, etag string) bool {
	for _, line := range lines {
		for s := strings.Trim(line, " \t"); s != ""; {
			if s == "*" {
				return true
			}
			var one string
			one, s = nextETag(s)
			if etag != "" && opaque(one) == opaque(etag) {
				return true
			}
		}
	}
	return false
}

// nextETag takes one entity tag off a list; commas inside the quotes belong to it.
func nextETag(s string) (etag, rest string) {
	from := 0
	if quote := strings.IndexByte(s, '"'); quote == 0 || quote == 2 && s[:2] == "W/" {
		if n := strings.IndexByte(s[quote+1:], '"'); n >= 0 {
			from = quote + n + 2
		}
	}
	comma := strings.IndexByte(s[from:], ',')
	if comma < 0 {
		return strings.Trim(s, " \t"), ""
	}
	return strings.Trim(s[:from+comma], " \t"), strings.TrimLeft(s[from+comma+1:], " \t,")
}

func opaque(etag string) string { return strings.TrimPrefix(etag, "W/") }

func strong(etag string) bool { return etag != "" && !strings.HasPrefix(etag, "W/") }

// bare are the fields that a 304 does not repeat: the client has them with its representation (RFC 9110 §15.4.5).
func bare(name string) bool {
	switch name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Content-Language", "Content-Range", "Content-Md5":
		return true
	}
	return false
}

// unconditional takes out of a request what would make the origin answer less than the whole: the answer is
// for everyone.
func unconditional(h http.Header) {
	for _, name := range []string{"Range", "If-Range", "If-None-Match", "If-Modified-Since"} {
		delete(h, name)
	}
}

// validate makes a request conditional on what is stored (RFC 9111 §4.3.1).
func validate(h http.Header, o *store.Object) {
	unconditional(h)
	if etag := only(o.Header, "Etag"); etag != "" {
		h.Set("If-None-Match", etag)
	}
	if modified := only(o.Header, "Last-Modified"); modified != "" {
		h.Set("If-Modified-Since", modified)
	}
	// The stored response's selecting fields equal the request's: lookup chose it so.
}

// updates reports whether a 304 speaks of o: if it names a strong entity tag, of the same one (RFC 9111 §4.3.4).
func updates(notModified http.Header, o *store.Object) bool {
	etag := only(notModified, "Etag")
	return !strong(etag) || etag == only(o.Header, "Etag")
}

// merged is a stored header updated by that of a 304 or a HEAD (RFC 9111 §3.2). What describes the bytes we
// hold stays as it is.
func merged(stored, newer http.Header) http.Header {
	h := stored.Clone()
	for name, lines := range newer {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range", "Content-Md5", "Etag", "Set-Cookie", "Age":
			continue
		}
		h[name] = slices.Clip(slices.Clone(lines))
	}
	delete(h, "Age")
	if age := newer["Age"]; len(age) > 0 {
		h["Age"] = slices.Clone(age)
	}
	return h
}

// hopByHop are never stored, whatever the transport left of them (RFC 9111 §3.1).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// endToEnd copies h without what belongs to one connection.
func endToEnd(h http.Header) http.Header {
	clean := make(http.Header, len(h)+1)
	for name, lines := range h {
		if !hopByHop(name) && len(lines) > 0 {
			clean[name] = slices.Clip(lines)
		}
	}
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); !governs(name) {
				delete(clean, name)
			}
		}
	}
	return clean
}

// governs lists the fields that say what may be stored and for whom. "Cache-Control is never appropriate as a
// connection option" (RFC 9110 §7.6.1): a response robbed of it, or of these, would seem to be for everyone.
func governs(name string) bool {
	switch name {
	case "Cache-Control", "Cdn-Cache-Control", "Expires", "Date", "Age", "Vary", "Set-Cookie", "Etag", "Last-Modified":
		return true
	}
	return false
}
