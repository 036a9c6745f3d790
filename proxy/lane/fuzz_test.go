package lane_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/nearzone/nearzone/proxy/lane"
)

// scripted is a connection whose input comes in given pieces and whose output is kept.
type scripted struct {
	in    []byte
	sizes []byte // of the reads, in turn
	reads int
	out   bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := len(s.in)
	if len(s.sizes) > 0 {
		n = 1 + int(s.sizes[s.reads%len(s.sizes)])
		s.reads++
	}
	n = copy(p, s.in[:min(n, len(s.in))])
	s.in = s.in[n:]
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// readAll reads requests as net/http does, telling the gate when each begins and ends.
func readAll(gate *lane.Gate, c net.Conn) (seen []lane.Seen) {
	br := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return seen
		}
		gate.ConnState(c, http.StateActive)
		body, err := io.ReadAll(r.Body)
		one := lane.Seen{Method: r.Method, Target: r.RequestURI, Body: body}
		if err != nil {
			one.Body = nil
			return append(seen, one)
		}
		seen = append(seen, one)
		gate.ConnState(c, http.StateIdle)
	}
}

// FuzzGate: whatever comes in, in whatever pieces, net/http reads through the gate the requests that the gate
// understood: the same methods, targets and bodies, none more, and fewer only where net/http is stricter.
func FuzzGate(f *testing.F) {
	for i, tc := range smuggling {
		f.Add([]byte(tc.sent+next), []byte{byte(i)})
	}
	f.Add([]byte(next), []byte{})
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		gate := lane.NewGate(lane.Options{})
		conn := &scripted{in: bytes.Clone(data), sizes: sizes}
		got, want := readAll(gate, gate.Conn(conn)), lane.See(data)
		if len(got) > len(want) {
			t.Fatalf("net/http read %d requests, the gate understood %d\ninput %q\ngot  %+q\nwant %+q", len(got), len(want), data, got, want)
		}
		for i := range got {
			same := got[i].Method == want[i].Method && got[i].Target == want[i].Target
			if !same || got[i].Body != nil && !bytes.Equal(got[i].Body, want[i].Body) {
				t.Fatalf("request %d: net/http read %+q, the gate understood %+q\ninput %q", i, got[i], want[i], data)
			}
			if got[i].Body == nil && i < len(got)-1 {
				t.Fatalf("net/http went on after a broken body\ninput %q", data)
			}
		}
	})
}

// FuzzGateChunks: chunked bodies made of anything after a good head.
func FuzzGateChunks(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\n"), []byte{0})
	f.Add([]byte("3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), []byte{3, 1})
	f.Add([]byte("0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), []byte{255})
	f.Fuzz(func(t *testing.T, body, sizes []byte) {
		data := append([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"), body...)
		gate := lane.NewGate(lane.Options{})
		got, want := readAll(gate, gate.Conn(&scripted{in: bytes.Clone(data), sizes: sizes})), lane.See(data)
		if len(got) > len(want) {
			t.Fatalf("net/http read %d requests, the gate understood %d: %q", len(got), len(want), data)
		}
		for i := range got {
			if got[i].Body != nil && !bytes.Equal(got[i].Body, want[i].Body) {
				t.Fatalf("request %d: net/http read %q, the gate understood %q: %q", i, got[i].Body, want[i].Body, data)
			}
		}
	})
}
