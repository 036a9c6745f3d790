package cache

import (
	"strconv"
	"strings"
	"time"
)

// cacheStatus is one member of Cache-Status (RFC 9211).
type cacheStatus struct {
	hit       bool
	fwd       string // registered token; empty: not forwarded
	fwdStatus int    // 0: not told
	ttl       time.Duration
	hasTTL    bool
	stored    bool
	collapsed bool
	detail    Reason
}

// append writes the member for a cache called name, itself an sf-token or sf-string already.
func (s cacheStatus) append(dst []byte, name string) []byte {
	dst = append(dst, name...)
	if s.hit {
		dst = append(dst, "; hit"...)
	} else if s.fwd != "" {
		dst = append(append(dst, "; fwd="...), s.fwd...)
	}
	if s.fwdStatus != 0 {
		dst = strconv.AppendInt(append(dst, "; fwd-status="...), int64(s.fwdStatus), 10)
	}
	if s.hasTTL {
		dst = strconv.AppendInt(append(dst, "; ttl="...), seconds(s.ttl), 10)
	}
	if s.stored {
		dst = append(dst, "; stored"...)
	}
	if s.collapsed {
		dst = append(dst, "; collapsed"...)
	}
	if s.detail != "" && string(s.detail) != s.fwd && s.detail != Fresh {
		dst = append(append(dst, "; detail="...), s.detail...)
	}
	return dst
}

// seconds rounds down, also below zero: what has just run out has -1 left, never 0.
func seconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		n--
	}
	return n
}

// statusName makes a node's name fit for Cache-Status: a token as it is, anything else as a string.
func statusName(name string) string {
	if name == "" {
		return "nearzone"
	}
	token := isAlpha(name[0]) || name[0] == '*'
	for i := range len(name) {
		if c := name[i]; !isAlpha(c) && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~:/", rune(c)) {
			token = false
		}
	}
	if token {
		return name
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case ' ' <= c && c < 0x7f:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
