package lane

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests prometheus.Counter
	refused  [reasons]prometheus.Counter // by Reason
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{requests: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "nearzone_lane_requests_total",
		Help: "HTTP/1 request heads that the gate let through.",
	})}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "nearzone_lane_refused_requests_total",
		Help: "HTTP/1 requests that the gate refused, by reason.",
	}, []string{"reason"})
	for r := None + 1; r < reasons; r++ {
		m.refused[r] = refused.WithLabelValues(r.String())
	}
	if reg != nil {
		reg.MustRegister(m.requests, refused)
	}
	return m
}
