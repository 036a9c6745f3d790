package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2raw is an HTTP/2 connection without TLS whose client keeps to no rule but the framing.
type h2raw struct {
	t      *testing.T
	framer *http2.Framer
	block  bytes.Buffer
	encode *hpack.Encoder
	next   uint32 // stream to open
}

func (e *edge) h2raw(settings ...http2.Setting) *h2raw {
	e.t.Helper()
	c := e.dial()
	io.WriteString(c, http2.ClientPreface)
	h := &h2raw{t: e.t, framer: http2.NewFramer(c, c), next: 1}
	h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.encode = hpack.NewEncoder(&h.block)
	if err := h.framer.WriteSettings(settings...); err != nil {
		e.t.Fatal(err)
	}
	return h
}

// open sends the head of a request for play.example.com and gives its stream.
func (h *h2raw) open(method, path string, end bool) uint32 {
	h.t.Helper()
	h.block.Reset()
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "play.example.com"}, {Name: ":path", Value: path},
	} {
		h.encode.WriteField(f)
	}
	id := h.next
	h.next += 2
	err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: end})
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

// frame is the next one of a stream. Pings on the way are answered.
func (h *h2raw) frame(stream uint32) http2.Frame {
	h.t.Helper()
	for {
		f, err := h.framer.ReadFrame()
		if err != nil {
			h.t.Fatalf("waiting for stream %d: %v", stream, err)
		}
		if ping, ok := f.(*http2.PingFrame); ok && !ping.IsAck() {
			h.framer.WritePing(true, ping.Data)
		}
		if f.Header().StreamID == stream {
			return f
		}
	}
}

// answer is what ends the wait for a stream: the status of its answer, or the error of its reset.
func (h *h2raw) answer(stream uint32) string {
	h.t.Helper()
	for {
		switch f := h.frame(stream).(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return fmt.Sprint("reset ", f.ErrCode)
		}
	}
}

// reset waits until a stream is reset.
func (h *h2raw) reset(stream uint32) http2.ErrCode {
	h.t.Helper()
	for {
		if f, ok := h.frame(stream).(*http2.RSTStreamFrame); ok {
			return f.ErrCode
		}
	}
}
