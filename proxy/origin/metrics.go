package origin

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests        *prometheus.CounterVec
	firstByte       *prometheus.HistogramVec
	connect         *prometheus.HistogramVec
	connectFailures *prometheus.CounterVec
	retries         *prometheus.CounterVec
	retriesDenied   *prometheus.CounterVec
	ejections       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Set) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "nearzone", Subsystem: "origin", Name: name, Help: help}
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), append([]string{"origin"}, labels...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		o := opts(name, help)
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: o.Namespace, Subsystem: o.Subsystem, Name: name, Help: help, Buckets: buckets,
		}, []string{"origin"})
	}
	m := &metrics{
		requests:        counter("requests_total", "Requests sent to the origin, by class of the status or error.", "code"),
		firstByte:       histogram("first_byte_seconds", "Time from a request to its response's head, retries included.", prometheus.ExponentialBuckets(0.001, 2.5, 12)),
		connect:         histogram("connect_seconds", "Time to make a connection, TLS included.", prometheus.ExponentialBuckets(0.0005, 2.5, 10)),
		connectFailures: counter("connect_failures_total", "Connections that could not be made."),
		retries:         counter("retries_total", "Requests sent again to another server, by what the first one did.", "reason"),
		retriesDenied:   counter("retries_denied_total", "Retries not made because the budget was spent."),
		ejections:       counter("ejections_total", "Times a server was taken out, by its checks or by failing requests."),
	}
	for _, c := range []prometheus.Collector{m.requests, m.firstByte, m.connect, m.connectFailures, m.retries, m.retriesDenied, m.ejections, newServerCollector(s)} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("origin metrics: %w", err)
		}
	}
	return m, nil
}

// originMetrics are those of one origin, looked up once.
type originMetrics struct {
	requests        map[string]prometheus.Counter // by code
	retries         map[reason]prometheus.Counter
	firstByte       prometheus.Observer
	connect         prometheus.Observer
	connectFailures prometheus.Counter
	retriesDenied   prometheus.Counter
	ejections       prometheus.Counter
}

var codes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx", "error", "canceled"}

func (m *metrics) of(origin string) *originMetrics {
	o := &originMetrics{
		requests:        make(map[string]prometheus.Counter),
		retries:         make(map[reason]prometheus.Counter),
		firstByte:       m.firstByte.WithLabelValues(origin),
		connect:         m.connect.WithLabelValues(origin),
		connectFailures: m.connectFailures.WithLabelValues(origin),
		retriesDenied:   m.retriesDenied.WithLabelValues(origin),
		ejections:       m.ejections.WithLabelValues(origin),
	}
	for _, code := range codes {
		o.requests[code] = m.requests.WithLabelValues(origin, code)
	}
	for r := reasonConnect; r < reasons; r++ {
		o.retries[r] = m.retries.WithLabelValues(origin, r.String())
	}
	return o
}

// forget removes the series of an origin that is no longer configured.
func (m *metrics) forget(origin string) {
	label := prometheus.Labels{"origin": origin}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.requests, m.firstByte, m.connect, m.connectFailures, m.retries, m.retriesDenied, m.ejections,
	} {
		v.DeletePartialMatch(label)
	}
}

// serverCollector reads the state of the servers when it is asked.
type serverCollector struct {
	set          *Set
	up, inFlight *prometheus.Desc
}

func newServerCollector(s *Set) serverCollector {
	return serverCollector{
		set:      s,
		up:       prometheus.NewDesc("nearzone_origin_server_up", "Whether the server is up.", []string{"origin", "server"}, nil),
		inFlight: prometheus.NewDesc("nearzone_origin_requests_in_flight", "Requests whose response has not ended.", []string{"origin", "server"}, nil),
	}
}

func (c serverCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.up
	ch <- c.inFlight
}

func (c serverCollector) Collect(ch chan<- prometheus.Metric) {
	for name, p := range *c.set.pools.Load() {
		for _, s := range p.members.Load().all {
			up := 0.0
			if s.up() {
				up = 1
			}
			ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, name, s.name)
			ch <- prometheus.MustNewConstMetric(c.inFlight, prometheus.GaugeValue, float64(s.inFlight.Load()), name, s.name)
		}
	}
}
