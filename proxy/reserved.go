package proxy

import (
	"encoding/json"
	"net/http"
	"slices"
)

// reservedSegment is the first segment of paths that are ours on customers' hosts.
const reservedSegment = ".nearzone"

// reserved reports whether a path is one of ours, in either of its readings.
func reserved(p path) bool {
	return p.segments[0] == reservedSegment || len(p.other) > 0 && p.other[0] == reservedSegment
}

// ours reports whether a reserved path is answered here. A site may have it switched off; a Host that no site names
// may still ask for health, because nodes ask each other by address.
func (x *exchange) ours(p path, named bool) bool {
	return x.site == nil || x.site.Reserved || !named && isHealth(p)
}

func isHealth(p path) bool { return slices.Equal(p.segments, []string{reservedSegment, "health"}) }

// reserved answers under /.nearzone/. Nothing there is ever forwarded.
func (x *exchange) reserved(p path, r *http.Request) {
	name := ""
	if len(p.segments) == 2 {
		name = p.segments[1]
	}
	switch {
	case isHealth(p):
		x.health(r)
	case x.site == nil:
		x.refuse(refusedHost)
	case name == "whoami":
		x.whoami(r)
	case name == "beacon" && x.p.deps.Beacon != nil:
		x.beacon(r)
	default:
		x.fail(http.StatusNotFound, "there is nothing here")
	}
}

// allow answers a method that is not among methods with 405.
func (x *exchange) allow(r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	x.fail(http.StatusMethodNotAllowed, "this path takes "+methods[0])
	return false
}

// health is 200 while this node wants requests, 503 when it drains.
func (x *exchange) health(r *http.Request) {
	if !x.allow(r, http.MethodGet, http.MethodHead) {
		return
	}
	h, status, body := x.w.Header(), http.StatusOK, "ok\n"
	if x.p.Draining() {
		status, body = http.StatusServiceUnavailable, "draining\n"
	}
	h["Content-Type"], h["Cache-Control"] = []string{"text/plain; charset=utf-8"}, []string{"no-store"}
	x.w.WriteHeader(status)
	x.w.Write([]byte(body))
}

// whoami tells a client what it looks like from here.
func (x *exchange) whoami(r *http.Request) {
	if !x.allow(r, http.MethodGet, http.MethodHead) {
		return
	}
	body, err := json.Marshal(struct {
		Client  string `json:"client"`
		Zone    string `json:"zone"`
		Node    string `json:"node"`
		Request string `json:"request_id"`
	}{x.client.String(), x.p.deps.Zone, x.p.deps.Node, x.id})
	if err != nil {
		panic(err) // four strings
	}
	h := x.w.Header()
	h["Content-Type"], h["Cache-Control"] = []string{"application/json"}, []string{"no-store"}
	h["Access-Control-Allow-Origin"] = []string{"*"}
	x.w.Write(append(body, '\n'))
}
