package lane

import (
	"bytes"
	"strings"
)

// head is what the gate keeps of a request head: where its body ends.
type head struct {
	chunked bool
	length  int64 // with chunked false
}

// parseHead reads a whole head, its final empty line included. Lines end in CRLF: the caller has seen to that.
func parseHead(b []byte) (head, Reason) {
	line, rest := cutLine(b)
	version10, r := parseRequestLine(line)
	if r != None {
		return head{}, r
	}
	f := fields{length: -1}
	for line, rest = cutLine(rest); len(line) > 0; line, rest = cutLine(rest) {
		if r := f.add(line); r != None {
			return head{}, r
		}
	}
	return f.framing(version10)
}

// cutLine takes one line off b, without its CRLF.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 {
		return nil, nil
	}
	return b[:i-1], b[i+1:]
}

// parseRequestLine checks `method SP target SP version` (RFC 9112 §3), with exactly these two spaces.
func parseRequestLine(line []byte) (version10 bool, r Reason) {
	if bytes.IndexByte(line, '\r') >= 0 {
		return false, BareCR
	}
	method, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return false, BadRequestLine
	}
	target, version, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(target) == 0 {
		return false, BadRequestLine
	}
	if !isToken(method) {
		return false, BadMethod
	}
	if r := checkVersion(version); r != None {
		return false, r
	}
	return version[len(version)-1] == '0', checkTarget(string(method), target)
}

// checkVersion accepts the two versions whose framing we know. Later minor versions do not exist.
func checkVersion(v []byte) Reason {
	switch string(v) {
	case "HTTP/1.1", "HTTP/1.0":
		return None
	}
	if len(v) == len("HTTP/1.1") && bytes.HasPrefix(v, []byte("HTTP/")) && isDigit(v[5]) && v[6] == '.' && isDigit(v[7]) {
		return BadVersion
	}
	return BadRequestLine
}

// checkTarget accepts the origin form, the absolute form of http and https, and `*` for OPTIONS (RFC 9112 §3.2).
// The host of an absolute form replaces Host in net/http, as §3.2.2 demands, so it is held to the same rules.
func checkTarget(method string, target []byte) Reason {
	for _, c := range target {
		if c <= ' ' || c == 0x7f || c == '#' {
			return BadTarget
		}
	}
	switch {
	case method == "CONNECT" || method == "PRI":
		return NotForUs
	case len(target) == 1 && target[0] == '*':
		return when(method != "OPTIONS", BadTarget)
	case target[0] == '/':
		return checkPath(target)
	}
	authority, ok := cutScheme(target)
	if !ok {
		return BadTarget
	}
	end := bytes.IndexAny(authority, "/?")
	if end < 0 {
		end = len(authority)
	}
	if !ValidHost(string(authority[:end])) {
		return BadHost
	}
	return checkPath(authority[end:])
}

// ValidRequest holds method and path of an HTTP/2 request to the rules of an HTTP/1 request line, which they may
// become: a path, or `*` alone for OPTIONS (RFC 9113 §8.3.1).
func ValidRequest(method, path string) bool {
	return (strings.HasPrefix(path, "/") || path == "*") && isToken([]byte(method)) && checkTarget(method, []byte(path)) == None
}

// cutScheme takes http:// or https:// off target.
func cutScheme(target []byte) (rest []byte, ok bool) {
	for _, scheme := range []string{"http://", "https://"} {
		if len(target) > len(scheme) && equalFold(target[:len(scheme)], scheme) {
			return target[len(scheme):], true
		}
	}
	return nil, false
}

// checkPath refuses a broken percent-encoding before the query, which no two servers read alike.
func checkPath(path []byte) Reason {
	for i := 0; i < len(path) && path[i] != '?'; i++ {
		if path[i] == '%' && (i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2])) {
			return BadTarget
		}
	}
	return None
}

// ValidHost reports whether h is `host` or `host:port` of a kind we serve: letters, digits, `.`, `-` and `_`, or an
// IPv6 address in brackets. Everything else that RFC 3986 allows in an authority (userinfo, percent-encoding,
// sub-delimiters) is somewhere read as an end of the name.
func ValidHost(h string) bool {
	name, port := h, ""
	if strings.HasPrefix(h, "[") {
		end := strings.IndexByte(h, ']')
		if end < 2 || strings.Trim(h[1:end], "0123456789abcdefABCDEF:.") != "" {
			return false
		}
		name, port = h[:end+1], h[end+1:]
		if port != "" && port[0] != ':' {
			return false
		}
		port = strings.TrimPrefix(port, ":")
	} else if i := strings.IndexByte(h, ':'); i >= 0 {
		name, port = h[:i], h[i+1:]
	}
	if name == "" || len(name) > 255 || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
		return false
	}
	return name[0] == '[' || strings.IndexFunc(name, notInHost) < 0
}

func notInHost(c rune) bool {
	return c >= 0x80 || !isDigit(byte(c)) && !isAlpha(byte(c)) && c != '.' && c != '-' && c != '_'
}

// fields collects what the framing of a body depends on.
type fields struct {
	hosts     int
	length    int64 // -1: none
	lengths   []byte
	codings   int
	notCoding bool // a Transfer-Encoding that is not chunked
}

// add checks one field line (RFC 9112 §5) and takes note of Host, Content-Length and Transfer-Encoding.
func (f *fields) add(line []byte) Reason {
	name, value, r := splitField(line)
	if r != None {
		return r
	}
	switch {
	case equalFold(name, "host"):
		f.hosts++
		if len(value) == 0 {
			return NoHost
		}
		return when(!ValidHost(string(value)), BadHost)
	case equalFold(name, "content-length"):
		return f.addLength(value)
	case equalFold(name, "transfer-encoding"):
		f.codings++
		f.notCoding = f.notCoding || !equalFold(value, "chunked")
	}
	return None
}

// addLength takes a Content-Length. A repeated one must be the same text: RFC 9110 §8.6 lets us read it as one.
func (f *fields) addLength(value []byte) Reason {
	n, ok := parseLength(value)
	switch {
	case !ok:
		return BadLength
	case f.length >= 0 && !bytes.Equal(value, f.lengths):
		return LengthsDiffer
	}
	f.length, f.lengths = n, value
	return None
}

// framing is the verdict on the whole head (RFC 9112 §6.3).
func (f *fields) framing(version10 bool) (head, Reason) {
	switch {
	case f.hosts > 1:
		return head{}, ManyHosts
	case f.hosts == 0 && !version10:
		return head{}, NoHost
	case f.codings > 0 && version10:
		return head{}, CodingOn10
	case f.codings > 0 && f.length >= 0:
		return head{}, LengthAndCoding
	case f.codings > 1 || f.notCoding:
		return head{}, BadCoding
	}
	return head{chunked: f.codings == 1, length: max(f.length, 0)}, None
}

// splitField takes a field line apart and checks every byte of it.
func splitField(line []byte) (name, value []byte, r Reason) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, ObsFold
	}
	colon := bytes.IndexByte(line, ':')
	switch {
	case colon == 0:
		return nil, nil, EmptyName
	case colon < 0:
		return nil, nil, BadName
	}
	name, value = line[:colon], bytes.Trim(line[colon+1:], " \t")
	if last := name[colon-1]; last == ' ' || last == '\t' {
		return nil, nil, SpaceBeforeColon
	}
	if !isToken(name) {
		return nil, nil, BadName
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, control(c)
		}
	}
	return name, value, None
}

// parseLength reads 1*DIGIT. More than 18 digits is no length that anybody sends.
func parseLength(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// control names a control character.
func control(c byte) Reason {
	if c == '\r' {
		return BareCR
	}
	return BadCharacter
}

// when is r if cond holds.
func when(cond bool, r Reason) Reason {
	if cond {
		return r
	}
	return None
}

// equalFold compares b with a lower-case ASCII text without regard to case. strings.EqualFold would also fold
// the Kelvin sign into a k.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if isAlpha(c) {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isToken is RFC 9110 §5.6.2.
func isToken(b []byte) bool {
	for _, c := range b {
		if !isTokenChar(c) {
			return false
		}
	}
	return len(b) > 0
}

func isTokenChar(c byte) bool {
	return isAlpha(c) || isDigit(c) || c < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
