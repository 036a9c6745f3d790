package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/lane"
	"github.com/nearzone/nearzone/proxy/origin"
)

// fail sends a short plain answer that names the request, for the log to be searched by.
func (x *exchange) fail(status int, text string) {
	h := x.w.Header()
	shared := h["Access-Control-Allow-Origin"]
	clear(h)
	if shared != nil {
		h["Access-Control-Allow-Origin"] = shared
	}
	if x.out.Status != "" {
		h["Cache-Status"] = []string{x.cacheStatus()}
	}
	body := x.page(h, status, text)
	x.w.WriteHeader(status)
	x.w.Write(body)
}

// page makes the body of an error and sets the fields that go with it.
func (x *exchange) page(h http.Header, status int, text string) []byte {
	body := fmt.Appendf(nil, "%d %s: %s\nrequest %s\n", status, http.StatusText(status), text, x.id)
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{fmt.Sprint(len(body))}
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"} // an origin that is down is tried once a second; what is busy may be done
	}
	return body
}

// cacheStatus is the member of Cache-Status for what went past the cache.
func (x *exchange) cacheStatus() string {
	return "nearzone; fwd=bypass; detail=" + string(x.out.Reason)
}

const (
	textTimeout  = "the origin did not answer in time"
	textNoServer = "no server of the origin is up"
	textBroken   = "the origin could not be reached or broke off"
)

// instead replaces the cache's own bare 502 or 504 with our page; nil if this answer is none of these. An origin of
// which no server is up is 503, with a time to come again.
func (x *exchange) instead(h http.Header, status int) (int, []byte) {
	if status != http.StatusBadGateway && status != http.StatusGatewayTimeout || !refusedByCache(h) {
		return status, nil
	}
	switch {
	case x.noServer.Load():
		return http.StatusServiceUnavailable, x.page(h, http.StatusServiceUnavailable, textNoServer)
	case status == http.StatusGatewayTimeout:
		return status, x.page(h, status, textTimeout)
	}
	return status, x.page(h, status, textBroken)
}

// refusedByCache tells the cache's refusal from an origin's answer of the same status, which has a fwd-status.
func refusedByCache(h http.Header) bool {
	lines := h["Cache-Status"]
	if len(lines) == 0 {
		return false
	}
	member := lines[len(lines)-1]
	member = member[strings.LastIndexByte(member, ',')+1:]
	ours := strings.HasSuffix(member, "detail="+string(cache.OriginError)) || strings.HasSuffix(member, "detail="+string(cache.OriginTimeout))
	return ours && !strings.Contains(member, "fwd-status")
}

// passFailed answers for an origin that did not.
func passFailed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	if x == nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	x.failed(r.Context(), err)
}

// failed says what went wrong on the way to the origin, or on the way from the client.
func (x *exchange) failed(ctx context.Context, err error) {
	if body := x.upload.failure(); body != nil {
		err = body
	}
	if x.w.begun() {
		panic(http.ErrAbortHandler)
	}
	var refused *lane.Refused
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		x.refuse(refusedBody)
		return
	case errors.As(err, &refused):
		x.fail(refused.Reason.Status(), strings.TrimPrefix(refused.Error(), "request refused: "))
		return
	case clientGone(ctx, err), x.upload.failure() != nil && !errors.Is(err, errBodyIdle):
		x.out.Reason = cache.ClientGone
		panic(http.ErrAbortHandler)
	case errors.Is(err, errBodyIdle), errors.Is(err, origin.ErrBody):
		x.fail(http.StatusRequestTimeout, "the request's body stopped coming")
		return
	}
	x.p.log.Debug("origin failed", "request", x.id, "origin", x.route.Origin, "err", err)
	x.out.Reason = cache.OriginError
	switch {
	case errors.Is(err, origin.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		x.out.Reason = cache.OriginTimeout
		x.fail(http.StatusGatewayTimeout, textTimeout)
	case errors.Is(err, origin.ErrNoServer):
		x.fail(http.StatusServiceUnavailable, textNoServer)
	default:
		x.fail(http.StatusBadGateway, textBroken)
	}
}

// clientGone reports whether an error is the client's leaving.
func clientGone(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) && ctx.Err() != nil
}
