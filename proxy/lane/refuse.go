package lane

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// refuse answers a head that may not go on, ends the connection, and returns what net/http reads from it: the
// end. Nothing else is being written: net/http waits for a request, and has flushed the answer before.
func (c *conn) refuse(r Reason) error {
	c.gate.count(c, r)
	c.dead = io.EOF
	c.in = c.in[:0]
	c.release()
	text := reasonTexts[r].text + "\n"
	_, err := fmt.Fprintf(c.Conn, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"X-Content-Type-Options: nosniff\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		r.Status(), http.StatusText(r.Status()), time.Now().UTC().Format(http.TimeFormat), len(text), text)
	if err == nil {
		c.linger()
	}
	return c.dead
}

// linger ends our direction and reads on for a moment.
func (c *conn) linger() {
	if c.CloseWrite() != nil {
		return
	}
	if c.Conn.SetReadDeadline(time.Now().Add(lingerFor)) != nil {
		return
	}
	buf := c.gate.buffers.Get().(*[]byte)
	defer c.gate.buffers.Put(buf)
	for total := 0; total < lingerBytes; {
		n, err := c.Conn.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// count makes a refusal visible: always in the metrics, with its client in the log at debug.
func (g *Gate) count(c *conn, r Reason) {
	g.metrics.refused[r].Inc()
	g.log.Debug("request refused", slog.String("reason", r.String()), slog.Any("client", c.RemoteAddr()))
}
