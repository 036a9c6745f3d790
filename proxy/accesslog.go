package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	logQueue  = 4096 // lines that may wait; at 400 bytes a line less than 2 MiB
	logBuffer = 64 << 10
	logFlush  = 100 * time.Millisecond // how long a line may wait for others to be written with
)

// accessLog writes one JSON object a line. Requests never wait for it: lines that find the queue full are dropped
// and counted.
type accessLog struct {
	w       io.Writer   // nil: no log
	off     atomic.Bool // log.access: off
	queue   chan *[]byte
	lines   sync.Pool // of *[]byte
	metrics *metrics
}

func newAccessLog(w io.Writer, m *metrics) *accessLog {
	return &accessLog{w: w, queue: make(chan *[]byte, logQueue), metrics: m, lines: sync.Pool{New: func() any {
		b := make([]byte, 0, 512)
		return &b
	}}}
}

// run writes until ctx ends, then what still waits.
func (l *accessLog) run(ctx context.Context) {
	if l.w == nil {
		return
	}
	out := bufio.NewWriterSize(l.w, logBuffer)
	defer l.flush(out)
	var due <-chan time.Time // nil while nothing is buffered
	for {
		select {
		case line := <-l.queue:
			l.put(out, line)
			if due == nil {
				due = time.After(logFlush)
			}
		case <-due:
			due = nil
			l.flush(out)
		case <-ctx.Done():
			for {
				select {
				case line := <-l.queue:
					l.put(out, line)
				default:
					return
				}
			}
		}
	}
}

func (l *accessLog) put(out *bufio.Writer, line *[]byte) {
	if _, err := out.Write(*line); err != nil {
		l.lost(out)
	}
	l.lines.Put(line)
}

func (l *accessLog) flush(out *bufio.Writer) {
	if out.Flush() != nil {
		l.lost(out)
	}
}

// lost counts a failed write, as of one line, and goes on: a bufio.Writer that has failed would never write again.
func (l *accessLog) lost(out *bufio.Writer) {
	l.metrics.logDropped.Inc()
	out.Reset(l.w)
}

// write queues the line of a request that is over.
func (l *accessLog) write(x *exchange, r *http.Request) {
	if l.w == nil || l.off.Load() {
		return
	}
	line := l.lines.Get().(*[]byte)
	*line = x.appendLine((*line)[:0], r)
	select {
	case l.queue <- line:
	default:
		l.metrics.logDropped.Inc()
		l.lines.Put(line)
	}
}

// took is how long a request has taken so far.
func (x *exchange) took() time.Duration { return time.Since(x.began) }

func (x *exchange) upstreamTook() time.Duration {
	if took := time.Duration(x.passed.Load()); took > 0 {
		return took
	}
	return x.out.Upstream
}

// appendLine writes a request down. Fields that do not apply are left out.
func (x *exchange) appendLine(b []byte, r *http.Request) []byte {
	b = append(b, `{"time":"`...)
	b = x.began.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, '"')
	b = field(b, "request_id", x.id)
	b = field(b, "client", loggedClient(x.client, x.st.cfg.Log.Client))
	b = field(b, "zone", x.p.deps.Zone)
	b = field(b, "node", x.p.deps.Node)
	if x.site != nil {
		b = field(b, "site", x.site.Name)
	}
	b = field(b, "method", r.Method)
	b = field(b, "host", r.Host)
	b = field(b, "path", r.URL.RequestURI())
	b = field(b, "proto", r.Proto)
	b = number(b, "status", float64(x.w.status))
	b = number(b, "bytes", float64(x.w.bytes.Load()))
	b = number(b, "duration_ms", millis(x.took()))
	b = field(b, "cache", x.out.Status)
	b = field(b, "reason", string(x.out.Reason))
	if took := x.upstreamTook(); took > 0 {
		b = number(b, "upstream_ms", millis(took))
	}
	if x.route != nil {
		b = field(b, "origin", x.route.Origin)
	}
	if r.TLS != nil {
		b = field(b, "tls", tls.VersionName(r.TLS.Version))
	}
	b = field(b, "ua", r.UserAgent())
	b = field(b, "referer", r.Referer())
	return append(b, "}\n"...)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// loggedClient is the client's address as log.client wants it: full, prefix (/24, /48) or none.
func loggedClient(a netip.Addr, how string) string {
	switch how {
	case "none":
		return ""
	case "prefix":
		return prefixOf(a).String()
	}
	return a.String()
}

// prefixOf is the network a client is counted in: /24 or /48.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}

// field appends a member that is a string, unless it is empty.
func field(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, ',', '"'), name...), '"', ':', '"')
	return append(appendEscaped(b, value), '"')
}

func number(b []byte, name string, value float64) []byte {
	b = append(append(append(b, ',', '"'), name...), '"', ':')
	return strconv.AppendFloat(b, value, 'f', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendEscaped writes s as the inside of a JSON string. What is no UTF-8 becomes U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size
			continue
		}
		i++
	}
	return b
}
