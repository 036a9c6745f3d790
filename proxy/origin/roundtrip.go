package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// reason is why an attempt calls for another server.
type reason uint8

const (
	reasonNone    reason = iota
	reasonConnect        // no connection: nothing was sent
	reasonTimeout        // no head in time
	reasonBroken         // the connection ended, or was not HTTP
	reasonBusy           // 503 (Service Unavailable)
	reasons
)

func (r reason) String() string {
	return [...]string{"none", "connect", "timeout", "broken", "status_503"}[r]
}

// RoundTrip sends a request to a server of the origin and gives the response as it came. The caller sets path,
// query, header and Host; scheme and server are chosen here. The response's body must be closed. A request's body
// that is silent is the caller's to end, by a deadline on its client's connection: the server is not waited for
// meanwhile.
//
// A request is sent again, to another server that is up, when the first one could not be connected to (nothing
// was sent: any method), or, for GET, HEAD, OPTIONS, TRACE, PUT and DELETE, when it timed out or broke off before
// any of its response was seen, or answered 503. That takes a body that has not been read yet or can be made
// anew (GetBody), and room in retries.max and retries.budget. When the second server does worse than a 503, the
// 503 is the answer. 502 and 504 are passed on: a gateway said them, which has tried already.
func (p *Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	began := time.Now()
	p.budget.request(began)
	body := newUpload(req)
	resp, err := p.send(req, body)
	body.finish()
	p.count(req, resp, err, began)
	return resp, err
}

func (p *Pool) count(req *http.Request, resp *http.Response, err error, began time.Time) {
	switch {
	case resp != nil:
		p.metrics.firstByte.Observe(time.Since(began).Seconds())
		p.metrics.requests[codes[min(max(resp.StatusCode/100, 1), 5)-1]].Inc()
	case req.Context().Err() != nil:
		p.metrics.requests["canceled"].Inc()
	default:
		p.metrics.requests["error"].Inc()
	}
}

// send makes attempts until one is good enough or no other can be made.
func (p *Pool) send(req *http.Request, body *upload) (*http.Response, error) {
	s, err := p.first(req)
	if err != nil {
		return nil, err
	}
	var tried []*server
	var busy *http.Response // a 503 kept in case the next server does worse
	for {
		resp, err := p.attempt(req, s, body)
		tried = append(tried, s)
		why := reasonFor(req, resp, err)
		next := p.next(req, body, why, tried)
		if next == nil {
			return better(busy, resp, err)
		}
		if resp != nil {
			closeBody(busy)
			busy = resp
		}
		p.log.Debug("retrying on another server", "origin", p.name, "server", s.name, "next", next.name, "reason", why, "err", err)
		s = next
	}
}

// better chooses between the 503 kept from an earlier attempt and the outcome of the last.
func better(busy, resp *http.Response, err error) (*http.Response, error) {
	if busy == nil {
		return resp, err
	}
	if err != nil {
		return busy, nil
	}
	closeBody(busy)
	return resp, nil
}

func closeBody(resp *http.Response) {
	if resp != nil {
		resp.Body.Close()
	}
}

// first is the server for the first attempt.
func (p *Pool) first(req *http.Request) (*server, error) {
	var buf [stackServers]*server
	servers := p.candidates(buf[:0], time.Now())
	if len(servers) == 0 && p.await(req.Context()) {
		servers = p.candidates(buf[:0], time.Now())
	}
	if len(servers) == 0 {
		if err := req.Context().Err(); err != nil {
			return nil, err
		}
		return nil, p.noServer()
	}
	return p.pick(req, servers), nil
}

// next is the server for another attempt; nil if there is to be none.
func (p *Pool) next(req *http.Request, body *upload, why reason, tried []*server) *server {
	if why == reasonNone || len(tried) > p.cfg.Retries.Max || req.Context().Err() != nil {
		return nil
	}
	var buf [stackServers]*server
	servers := slices.DeleteFunc(p.healthy(buf[:0]), func(s *server) bool { return slices.Contains(tried, s) })
	if len(servers) == 0 || !body.next() {
		return nil
	}
	if !p.budget.retry(time.Now()) {
		p.metrics.retriesDenied.Inc()
		return nil
	}
	p.metrics.retries[why].Inc()
	return p.pick(req, servers)
}

// reasonFor says why a request should be sent again; reasonNone if it should or must not.
func reasonFor(req *http.Request, resp *http.Response, err error) reason {
	switch {
	case err == nil && resp.StatusCode == http.StatusServiceUnavailable && idempotent(req.Method):
		return reasonBusy
	case err == nil || errors.Is(err, ErrBody):
		return reasonNone
	case errors.Is(err, ErrConnect), errors.Is(err, ErrNoServer):
		return reasonConnect
	case !idempotent(req.Method):
		return reasonNone
	case errors.Is(err, ErrTimeout):
		return reasonTimeout
	case errors.Is(err, ErrBroken):
		return reasonBroken
	}
	return reasonNone
}

// idempotent is RFC 9110 §9.2.2.
func idempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// attempt sends the request to one server and judges the server by what comes.
func (p *Pool) attempt(req *http.Request, s *server, body *upload) (*http.Response, error) {
	ctx, x := newExchange(req, s, p.cfg.Timeouts.Idle)
	out := p.outgoing(ctx, req, s)
	if body != nil {
		x.send(out, body)
	}
	resp, err := x.via.RoundTrip(out)
	if err != nil {
		err = p.failure(req, x, err)
		p.judge(x, err)
		x.end()
		return nil, err
	}
	s.lastHead.Store(time.Now().UnixNano())
	p.judgeStatus(s, resp.StatusCode)
	x.receive(resp)
	resp.Request = req
	return resp, nil
}

// outgoing is the request as the server gets it; the caller's is left alone.
func (p *Pool) outgoing(ctx context.Context, req *http.Request, s *server) *http.Request {
	out := req.WithContext(ctx)
	u := *req.URL
	u.Scheme, u.Host = s.scheme(), s.address
	out.URL = &u
	switch {
	case p.host != "":
		out.Host = p.host
	case out.Host == "":
		out.Host = req.URL.Host
	}
	if _, has := out.Header["User-Agent"]; !has {
		out.Header = out.Header.Clone()
		if out.Header == nil {
			out.Header = make(http.Header)
		}
		out.Header["User-Agent"] = []string{""} // the client had none: do not make one up
	}
	return out
}

// failure gives an attempt's error its kind.
func (p *Pool) failure(req *http.Request, x *exchange, err error) error {
	if ctxErr := req.Context().Err(); ctxErr != nil {
		return context.Cause(req.Context())
	}
	e := &serverError{origin: p.name, server: x.server.name, err: err}
	var connect *connectError
	var timeout net.Error
	switch {
	case errors.As(err, &connect) && connect.refused:
		e.kinds = []error{ErrNoServer}
	case errors.As(err, &connect):
		e.kinds = []error{ErrConnect}
		if errors.As(err, &timeout) && timeout.Timeout() {
			e.kinds = []error{ErrConnect, ErrTimeout}
		}
	case x.watch.fired.Load():
		e.kinds, e.err = []error{ErrTimeout}, x.silence()
	case x.bodyError() != nil:
		e.kinds, e.err = []error{ErrBody}, fmt.Errorf("%w: %w", ErrBody, x.bodyError())
	case errors.As(err, &timeout) && timeout.Timeout():
		e.kinds = []error{ErrTimeout}
		e.err = fmt.Errorf("no response head within timeouts.first_byte of %v: %w", p.cfg.Timeouts.FirstByte, err)
	default:
		e.kinds = []error{ErrBroken}
	}
	return e
}
