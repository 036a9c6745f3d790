package lane

// body follows one request body byte by byte and knows where it ends. The zero value is at its end.
type body struct {
	at    place
	left  int64    // bytes still to come of a counted body, or of the current chunk
	bytes int      // in the current line, and of all trailers together
	name  [17]byte // the first bytes of a trailer's name, lower case
	named int      // bytes of the name so far; more than len(name) means that it is longer
}

// place is where in a body the next byte is.
type place uint8

const (
	atEnd place = iota
	inCounted
	chunkSize      // first digit
	chunkSizeMore  // further digits, `;` or CR
	chunkExtension // up to CR
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerLine // first byte of a trailer, or the CR of the end
	trailerName
	trailerValue
	trailerLF
	lastLF
)

const (
	maxChunkSize = int64(1) << 48 // beyond any body, and far from overflow
	// maxChunkLine bounds the extensions of one chunk, maxTrailers all trailers of a body: net/http reads
	// trailers from a buffer of 4 KiB.
	maxChunkLine = 1 << 10
	maxTrailers  = 4 << 10
)

// newBody is the body that follows h.
func newBody(h head) body {
	switch {
	case h.chunked:
		return body{at: chunkSize}
	case h.length > 0:
		return body{at: inCounted, left: h.length}
	}
	return body{}
}

func (b *body) done() bool { return b.at == atEnd }

// want is how many bytes a read may ask for without touching what follows a counted body.
func (b *body) want(n int) int {
	if b.at == inCounted && int64(n) > b.left {
		return int(b.left)
	}
	return n
}

// take follows p up to the end of the body and says how many bytes of p belong to it. On a refusal these are the
// bytes before the wrong one.
func (b *body) take(p []byte) (n int, r Reason) {
	for n < len(p) && b.at != atEnd {
		if b.at == inCounted || b.at == chunkData {
			n += b.skip(len(p) - n)
			continue
		}
		if r := b.step(p[n]); r != None {
			return n, r
		}
		n++
	}
	return n, None
}

// skip passes content, which is not ours to look at.
func (b *body) skip(n int) int {
	n = int(min(int64(n), b.left))
	b.left -= int64(n)
	if b.left == 0 && b.at == chunkData {
		b.at = chunkDataCR
	} else if b.left == 0 {
		b.at = atEnd
	}
	return n
}

// step takes one byte of chunked framing (RFC 9112 §7.1). It is stricter than net/http, never laxer: sizes are
// bare digits, lines end in CRLF.
func (b *body) step(c byte) Reason {
	switch b.at {
	case chunkSize, chunkSizeMore:
		return b.size(c)
	case chunkExtension:
		return b.extension(c)
	case chunkSizeLF:
		return b.expect(c, '\n', b.afterSize())
	case chunkDataCR:
		return b.expect(c, '\r', chunkDataLF)
	case chunkDataLF:
		return b.expect(c, '\n', chunkSize)
	case trailerLF:
		return b.expect(c, '\n', trailerLine)
	case lastLF:
		return b.expect(c, '\n', atEnd)
	}
	return b.trailer(c)
}

func (b *body) expect(c, want byte, next place) Reason {
	switch {
	case c == want:
		b.at = next
		return None
	case c == '\n':
		return BareLF
	case want == '\n':
		return BareCR
	}
	return BadChunk
}

// afterSize is what follows a size line: data, or the trailers after the size zero.
func (b *body) afterSize() place {
	if b.left == 0 {
		return trailerLine
	}
	return chunkData
}

func (b *body) size(c byte) Reason {
	first := b.at == chunkSize
	if first {
		b.left, b.bytes = 0, 0
	}
	if digit, ok := hexValue(c); ok {
		b.left, b.at, b.bytes = b.left<<4|digit, chunkSizeMore, b.bytes+1
		return when(b.left > maxChunkSize || b.bytes > 16, BadChunk)
	}
	switch {
	case c == '\n':
		return BareLF
	case first:
		return BadChunk
	case c == '\r':
		b.at = chunkSizeLF
	case c == ';':
		b.at = chunkExtension
	default:
		return BadChunk
	}
	return None
}

// extension passes chunk extensions without a look inside: nobody gives them a meaning (RFC 9112 §7.1.1).
func (b *body) extension(c byte) Reason {
	b.bytes++
	switch {
	case c == '\r':
		b.at = chunkSizeLF
		return None
	case c == '\n':
		return BareLF
	case c < ' ' && c != '\t' || c == 0x7f:
		return BadCharacter
	}
	return when(b.bytes > maxChunkLine, BadChunk)
}

// trailer takes one byte of the trailer section. bytes counts on from line to line.
func (b *body) trailer(c byte) Reason {
	if b.bytes++; b.bytes > maxTrailers {
		return BadTrailer
	}
	if c == '\n' {
		return BareLF
	}
	switch b.at {
	case trailerLine:
		b.named = 0
		if c == '\r' {
			b.at = lastLF
			return None
		}
		if c == ' ' || c == '\t' {
			return ObsFold
		}
		b.at = trailerName
		return b.trailerName(c)
	case trailerName:
		return b.trailerName(c)
	}
	if c == '\r' {
		b.at = trailerLF
		return None
	}
	return when(c < ' ' && c != '\t' || c == 0x7f, BadCharacter)
}

// trailerName takes one byte of a trailer's name. Framing fields and Host may not come this late (RFC 9110 §6.5.1).
func (b *body) trailerName(c byte) Reason {
	if c != ':' {
		if b.named < len(b.name) {
			b.name[b.named] = c
		}
		b.named++
		return when(!isTokenChar(c), BadTrailer)
	}
	b.at = trailerValue
	if b.named == 0 {
		return EmptyName
	}
	name := b.name[:min(b.named, len(b.name))]
	forbidden := b.named <= len(b.name) &&
		(equalFold(name, "content-length") || equalFold(name, "transfer-encoding") || equalFold(name, "host"))
	return when(forbidden, BadTrailer)
}

func hexValue(c byte) (int64, bool) {
	switch {
	case isDigit(c):
		return int64(c - '0'), true
	case isHex(c):
		return int64(c|0x20-'a') + 10, true
	}
	return 0, false
}
