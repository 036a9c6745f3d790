package cache

import (
	"net/http"
	"strconv"
	"strings"
)

// span is a range of bytes that exists: length bytes from start.
type span struct{ start, length int64 }

// contentRange is the header of a 206.
func (s span) contentRange(size int64) string {
	return "bytes " + strconv.FormatInt(s.start, 10) + "-" + strconv.FormatInt(s.start+s.length-1, 10) + "/" + strconv.FormatInt(size, 10)
}

// rangeVerdict is what a Range header makes of an answer.
type rangeVerdict uint8

const (
	whole         rangeVerdict = iota // no range, or none we must heed
	part                              // 206
	unsatisfiable                     // 416
)

// ranged decides what a request's Range asks of a representation of known size (RFC 9110 §14.2). More than
// one range is answered whole, which is always allowed and never many times the size.
func ranged(request, h http.Header, size int64) (span, rangeVerdict) {
	lines := request["Range"]
	if len(lines) != 1 || !ifRangeHolds(request, h) {
		return span{}, whole
	}
	return parseRange(lines[0], size)
}

// parseRange reads one byte range. What is malformed, or several, is no range at all.
func parseRange(s string, size int64) (span, rangeVerdict) {
	unit, spec, ok := strings.Cut(s, "=")
	if !ok || !strings.EqualFold(unit, "bytes") || strings.Contains(spec, ",") {
		return span{}, whole
	}
	first, last, ok := strings.Cut(strings.Trim(spec, " \t"), "-")
	if !ok {
		return span{}, whole
	}
	if first == "" {
		return suffix(last, size)
	}
	start, ok := position(first)
	if !ok {
		return span{}, whole
	}
	end := size - 1
	if last != "" {
		n, ok := position(last)
		if !ok || n < start {
			return span{}, whole
		}
		end = min(end, n)
	}
	if start >= size {
		return span{}, unsatisfiable
	}
	return span{start, end - start + 1}, part
}

// suffix is the last n bytes.
func suffix(last string, size int64) (span, rangeVerdict) {
	n, ok := position(last)
	switch {
	case !ok:
		return span{}, whole
	case n == 0 || size == 0:
		return span{}, unsatisfiable
	}
	n = min(n, size)
	return span{size - n, n}, part
}

// position reads digits alone; a number beyond 2^63 is beyond every end.
func position(s string) (int64, bool) {
	if !digits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		n = 1<<63 - 1
	}
	return n, true
}

// ifRangeHolds reports whether the client's part is of this representation: same strong entity tag, or the
// very same date (RFC 9110 §13.1.5).
func ifRangeHolds(request, h http.Header) bool {
	lines := request["If-Range"]
	if len(lines) == 0 {
		return true
	}
	want := strings.Trim(lines[0], " \t")
	if strings.HasPrefix(want, `"`) {
		return want == only(h, "Etag")
	}
	if strings.HasPrefix(want, "W/") {
		return false
	}
	asked, err := http.ParseTime(want)
	if err != nil {
		return false
	}
	modified, ok := dateIn(h, "Last-Modified")
	return ok && modified.Equal(asked)
}
