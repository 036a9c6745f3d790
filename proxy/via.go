package proxy

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nearzone/nearzone/config"
)

const (
	// viaRest is how long a node that could not be asked is left alone.
	viaRest = 2 * time.Second
	// viaConnect bounds the connection to another node; viaGrace is what it may take longer than its origin.
	viaConnect = time.Second
	viaGrace   = 2 * time.Second
)

// viaTransport has the connections to other nodes. They outlive reloads.
type viaTransport struct {
	http    *http.Transport
	metrics *metrics
	resting sync.Map // string (host:port) -> time.Time until which it is left alone
}

func newViaTransport(m *metrics) *viaTransport {
	dial := &net.Dialer{Timeout: viaConnect}
	return &viaTransport{metrics: m, http: &http.Transport{
		DialContext:         dial.DialContext,
		TLSHandshakeTimeout: viaConnect,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute, // less than Limits.Idle of the other side
	}}
}

func (t *viaTransport) close() { t.http.CloseIdleConnections() }

// viaZone is the zone that misses of a route ask first.
type viaZone struct {
	transport *viaTransport
	scheme    string
	nodes     []string // host:port
	firstByte time.Duration
	idle      time.Duration
	hop       hopKey
}

// newViaZone is nil for a route that goes to its origin directly: without via, and in the very zone it names.
func (p *Proxy) newViaZone(cfg *config.Config, r *route) *viaZone {
	o := cfg.Origin(r.Origin)
	if o == nil || o.Via == "" || o.Via == p.deps.Zone {
		return nil
	}
	zone := cfg.Zone(o.Via)
	if zone == nil {
		return nil
	}
	v := &viaZone{transport: p.via, firstByte: o.Timeouts.FirstByte + viaGrace, idle: o.Timeouts.Idle, hop: hopKey(cfg.Fleet.Key.Value())}
	v.scheme, v.nodes = "http", nodeAddresses(zone.Nodes, cfg.Listen.HTTP)
	if cfg.Listen.HTTP == "" {
		v.scheme, v.nodes = "https", nodeAddresses(zone.Nodes, cfg.Listen.HTTPS)
	}
	if len(v.nodes) == 0 {
		return nil
	}
	return v
}

// nodeAddresses is where the nodes of a zone listen: at their own port, or at the one that all listen at.
func nodeAddresses(nodes []config.ZoneNode, listen string) []string {
	_, common, _ := net.SplitHostPort(listen)
	var all []string
	for _, n := range nodes {
		port := common
		if n.Port != 0 {
			port = strconv.Itoa(int(n.Port))
		}
		if len(n.Addrs) > 0 && port != "" {
			all = append(all, net.JoinHostPort(n.Addrs[0].String(), port))
		}
	}
	return all
}

// ask sends a request for the cache to a node of the zone. It is nil when that one could not be asked, or has
// nothing to do with the request: then the origin is to be asked.
func (v *viaZone) ask(r *http.Request) *http.Response {
	node := v.pick(r.Host + r.URL.Path)
	if node == "" {
		return nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	out := v.outgoing(r.WithContext(ctx), node)
	silent := time.AfterFunc(v.firstByte, cancel)
	res, err := v.transport.http.RoundTrip(out)
	if err != nil || !silent.Stop() {
		closeBody(res)
		cancel()
		if r.Context().Err() == nil {
			v.rest(node)
		}
		v.transport.metrics.via["failed"].Inc()
		return nil
	}
	res.Body = &viaBody{ReadCloser: res.Body, idle: v.idle, silent: silent, cancel: cancel}
	switch res.StatusCode {
	case http.StatusMisdirectedRequest, http.StatusLoopDetected, http.StatusSwitchingProtocols:
		res.Body.Close()
		v.transport.metrics.via["declined"].Inc()
		return nil
	}
	v.transport.metrics.via["answered"].Inc()
	return res
}

func (v *viaZone) outgoing(r *http.Request, node string) *http.Request {
	out := r.Clone(r.Context())
	out.URL = &url.URL{Scheme: v.scheme, Host: node, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}
	if _, has := out.Header["User-Agent"]; !has {
		out.Header["User-Agent"] = []string{""}
	}
	v.hop.sign(out, time.Now())
	return out
}

// viaBody is a response's body that ends when the other node is silent too long.
type viaBody struct {
	io.ReadCloser
	idle   time.Duration
	silent *time.Timer // cancels the request
	cancel context.CancelFunc
}

func (b *viaBody) Read(p []byte) (int, error) {
	if b.idle > 0 {
		b.silent.Reset(b.idle)
		defer b.silent.Stop()
	}
	return b.ReadCloser.Read(p)
}

func (b *viaBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func closeBody(res *http.Response) {
	if res != nil {
		res.Body.Close()
	}
}

// pick is the node that keeps what key names, among those not resting: the same for every asker, so that the zone
// has one copy (rendezvous hashing). Empty: none.
func (v *viaZone) pick(key string) string {
	var best string
	var most uint64
	for _, node := range v.nodes {
		if until, ok := v.transport.resting.Load(node); ok && time.Now().Before(until.(time.Time)) {
			continue
		}
		h := fnv.New64a()
		io.WriteString(h, node)
		h.Write([]byte{0})
		io.WriteString(h, key)
		if sum := h.Sum64(); best == "" || sum > most {
			best, most = node, sum
		}
	}
	return best
}

func (v *viaZone) rest(node string) { v.transport.resting.Store(node, time.Now().Add(viaRest)) }

// hopKey signs requests between nodes, so that what one says of the client is believed by the next. Empty: nobody
// signs and nobody is believed.
type hopKey string

// hopSkew is how far the clocks of two nodes may be apart.
const hopSkew = time.Minute

// sign states the time and a MAC over the request and all it says of the client.
func (k hopKey) sign(r *http.Request, now time.Time) {
	delete(r.Header, "Nearzone-Hop")
	if k != "" {
		at := strconv.FormatInt(now.Unix(), 10)
		r.Header["Nearzone-Hop"] = []string{at + ";" + k.mac(r, at)}
	}
}

// signed reports whether another node sent r just now.
func (k hopKey) signed(r *http.Request, now time.Time) bool {
	lines := r.Header["Nearzone-Hop"]
	if k == "" || len(lines) != 1 {
		return false
	}
	at, mac, _ := strings.Cut(lines[0], ";")
	sec, err := strconv.ParseInt(at, 10, 64)
	if err != nil || now.Sub(time.Unix(sec, 0)).Abs() > hopSkew {
		return false
	}
	return hmac.Equal([]byte(mac), []byte(k.mac(r, at)))
}

func (k hopKey) mac(r *http.Request, at string) string {
	m := hmac.New(sha256.New, []byte("nearzone hop\x00"+string(k)))
	for _, s := range []string{at, r.Method, r.Host, r.URL.RequestURI()} {
		io.WriteString(m, s+"\n")
	}
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Request-Id"} {
		io.WriteString(m, name+":"+strings.Join(r.Header[name], "\x00")+"\n")
	}
	return hex.EncodeToString(m.Sum(nil))
}
