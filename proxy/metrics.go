package proxy

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// connRefusal is why a connection was closed before it came to a request.
type connRefusal uint8

const (
	connTooMany connRefusal = iota
	connProxyHeader
	connTLS
	connAccept
	connRefusals
)

func (r connRefusal) String() string {
	return [...]string{"too_many", "proxy_header", "tls", "accept"}[r]
}

type metrics struct {
	requests     *prometheus.CounterVec   // site, code, cache
	duration     *prometheus.HistogramVec // site
	conns        map[bool]prometheus.Gauge
	accepted     map[bool]prometheus.Counter
	refused      [refusals]prometheus.Counter
	refusedConns [connRefusals]prometheus.Counter
	via          map[string]prometheus.Counter
	beacons      map[string]prometheus.Counter
	received     prometheus.Counter
	sent         prometheus.Counter
	samples      prometheus.Counter
	panics       prometheus.Counter
	stalled      prometheus.Counter
	logDropped   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	made := made{reg}
	m := &metrics{
		requests: made.counters("nearzone_proxy_requests_total", "Requests answered, by site, status and what the cache did (none: it was not asked).", "site", "code", "cache"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nearzone_proxy_request_duration_seconds",
			Help:    "From the request's head to the answer's last byte, upgraded connections left out.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"site"}),
		received:   made.counter("nearzone_proxy_received_bytes_total", "Bytes from clients, TLS included."),
		sent:       made.counter("nearzone_proxy_sent_bytes_total", "Bytes to clients, TLS included."),
		samples:    made.counter("nearzone_proxy_samples_total", "Round-trip times of client connections that were told."),
		panics:     made.counter("nearzone_proxy_panics_total", "Panics in requests, each of which ended that request alone."),
		stalled:    made.counter("nearzone_proxy_stalled_streams_total", "HTTP/2 streams ended because their client took nothing."),
		logDropped: made.counter("nearzone_proxy_access_log_dropped_lines_total", "Lines of the access log that were dropped because writing it was too slow."),
		conns:      map[bool]prometheus.Gauge{}, accepted: map[bool]prometheus.Counter{},
		via: map[string]prometheus.Counter{}, beacons: map[string]prometheus.Counter{},
	}
	made.register(m.duration)
	open := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "nearzone_proxy_connections", Help: "Open client connections."}, []string{"transport"})
	made.register(open)
	accepted := made.counters("nearzone_proxy_accepted_connections_total", "Client connections accepted.", "transport")
	for secure, label := range map[bool]string{false: "tcp", true: "tls"} {
		m.conns[secure], m.accepted[secure] = open.WithLabelValues(label), accepted.WithLabelValues(label)
	}
	refused := made.counters("nearzone_proxy_refused_requests_total", "Requests answered with an error of our own, by reason.", "reason")
	for r := refusedNone + 1; r < refusals; r++ {
		m.refused[r] = refused.WithLabelValues(r.String())
	}
	refusedConns := made.counters("nearzone_proxy_refused_connections_total", "Client connections that came to no request, by reason.", "reason")
	for r := range connRefusals {
		m.refusedConns[r] = refusedConns.WithLabelValues(r.String())
	}
	via := made.counters("nearzone_proxy_via_requests_total", "Misses that asked another zone's edge first.", "result")
	for _, result := range []string{"answered", "declined", "failed"} {
		m.via[result] = via.WithLabelValues(result)
	}
	beacons := made.counters("nearzone_proxy_beacon_samples_total", "Round-trip times reported by clients.", "result")
	for _, result := range []string{"taken", "refused"} {
		m.beacons[result] = beacons.WithLabelValues(result)
	}
	return m
}

// observe counts a request that is over.
func (m *metrics) observe(x *exchange) {
	site, status := "none", x.out.Status
	if x.site != nil {
		site = x.site.Name
	}
	if status == "" {
		status = "none"
	}
	m.requests.WithLabelValues(site, strconv.Itoa(x.w.status), status).Inc()
	if x.w.status != 101 {
		m.duration.WithLabelValues(site).Observe(x.took().Seconds())
	}
}

// made registers what it makes.
type made struct{ reg prometheus.Registerer }

func (m made) register(c prometheus.Collector) {
	if m.reg != nil {
		m.reg.MustRegister(c)
	}
}

func (m made) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.register(c)
	return c
}

func (m made) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.register(c)
	return c
}
