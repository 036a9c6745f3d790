package lane

import (
	"bytes"
	"strconv"
)

// Seen is one request as the gate understands it.
type Seen struct {
	Method, Target string
	Body           []byte
}

// See walks over data as the gate does, without a connection: the requests before the first refusal, or before
// the end of data.
func See(data []byte) (seen []Seen) {
	for {
		data = bytes.TrimPrefix(data, []byte("\r\n"))
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if i := bytes.IndexByte(data, '\n'); end < 0 || i < end {
			// A bare LF anywhere in the head is a refusal.
			for at := 0; end >= 0 && at < end+4; {
				n := bytes.IndexByte(data[at:], '\n')
				if n == 0 || data[at+n-1] != '\r' {
					return seen
				}
				at += n + 1
			}
		}
		if end < 0 || end+4 > defaultMaxHead {
			return seen
		}
		h, r := parseHead(data[:end+4])
		if r != None {
			return seen
		}
		parts := bytes.SplitN(data, []byte{' '}, 3)
		one := Seen{Method: string(parts[0]), Target: string(parts[1])}
		data = data[end+4:]
		b := newBody(h)
		n, r := b.take(data)
		if r != None || !b.done() {
			return append(seen, Seen{Method: one.Method, Target: one.Target, Body: nil})
		}
		one.Body = content(h, data[:n])
		seen, data = append(seen, one), data[n:]
	}
}

// content takes the chunk framing off a body that has been proven.
func content(h head, raw []byte) []byte {
	if !h.chunked {
		return append([]byte{}, raw...)
	}
	out := []byte{}
	for {
		line, rest, _ := bytes.Cut(raw, []byte("\r\n"))
		digits, _, _ := bytes.Cut(line, []byte{';'})
		n, err := strconv.ParseInt(string(digits), 16, 64)
		if err != nil || n == 0 {
			return out
		}
		out = append(out, rest[:n]...)
		raw = rest[n+2:]
	}
}
