package proxy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/proxy"
)

func TestAccessLog(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "hello")
	})
	e := start(t, app(t, o.URL))
	r := e.request("GET", "/a%20b?c=d", "", "User-Agent", "a \"quoted\"\tagent \xff", "Referer", "http://x/")
	e.do(e.client(), r)
	e.do(e.client(), e.request("GET", "/a%20b?c=d", ""))
	e.do(e.client(), e.request("GET", "/", "", "Host", "unknown.example"))
	eventually(t, "three lines", func() bool { return strings.Count(e.access.String(), "\n") == 3 })
	var lines []map[string]any
	for line := range strings.Lines(e.access.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, one)
	}
	for i, want := range []map[string]any{
		{
			"client": "127.0.0.1", "zone": "us-west-2-lax-1a", "node": "node-1", "site": "play", "method": "GET", "host": "play.example.com",
			"path": "/a%20b?c=d", "proto": "HTTP/1.1", "status": 200.0, "bytes": 5.0, "cache": "miss", "reason": "uri-miss", "origin": "app",
			"ua": "a \"quoted\"\tagent \ufffd", "referer": "http://x/",
		},
		{"cache": "hit", "reason": "fresh", "status": 200.0, "upstream_ms": nil},
		{"status": 421.0, "reason": "unknown_host", "site": nil, "origin": nil, "host": "unknown.example", "cache": nil},
	} {
		for name, value := range want {
			if lines[i][name] != value {
				t.Errorf("line %d: %s is %v, want %v", i, name, lines[i][name], value)
			}
		}
		if _, err := time.Parse(time.RFC3339, fmt.Sprint(lines[i]["time"])); err != nil {
			t.Errorf("line %d: time: %v", i, err)
		}
		if lines[i]["request_id"] == nil || lines[i]["duration_ms"] == nil {
			t.Errorf("line %d: %v", i, lines[i])
		}
	}
	if took, _ := lines[0]["upstream_ms"].(float64); took <= 0 {
		t.Errorf("upstream_ms %v", lines[0]["upstream_ms"])
	}
}

func TestAccessLogHidesClients(t *testing.T) {
	o := serve(t, echo)
	for how, want := range map[string]string{"full": `"client":"127.0.0.1"`, "prefix": `"client":"127.0.0.0/24"`, "none": `"zone"`} {
		cfg := app(t, o.URL)
		cfg.Log.Client = how
		e := start(t, cfg)
		e.do(e.client(), e.request("GET", "/api/x", ""))
		eventually(t, "a line with "+want, func() bool { return strings.Contains(e.access.String(), want) })
		if how == "none" && strings.Contains(e.access.String(), "127.0.0") {
			t.Errorf("%s: %s", how, e.access.String())
		}
	}
}

// stuck is a log that nobody reads.
type stuck struct{ until chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

func TestAccessLogNeverBlocks(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") })
	release := make(chan struct{})
	e := start(t, app(t, o.URL), func(d *proxy.Deps) { d.Access = stuck{release} })
	defer close(release)
	c := e.dial()
	br := bufio.NewReader(c)
	for range 5000 {
		io.WriteString(c, "GET /x HTTP/1.1\r\nHost: play.example.com\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
	}
	if e.metric("nearzone_proxy_access_log_dropped_lines_total") == 0 {
		t.Error("no line was dropped")
	}
}
