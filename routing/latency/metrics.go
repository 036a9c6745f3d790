package latency

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/routing"
)

type metrics struct {
	samples  [routing.NumSources]prometheus.Counter
	rejected prometheus.Counter
	own      prometheus.Gauge
	merged   prometheus.Gauge
	digests  *prometheus.CounterVec // result
	sent     prometheus.Counter
	dropped  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	samples := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "nearzone_latency_samples_total", Help: "Round trips observed by this node.",
	}, []string{"source"})
	m := &metrics{
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_latency_rejected_samples_total", Help: "Samples refused: no client's address, no zone, or no possible round trip.",
		}),
		own: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nearzone_latency_own_cells", Help: "Pairs of prefix and zone measured by this node.",
		}),
		merged: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nearzone_latency_merged_cells", Help: "Pairs of prefix and zone heard of from other nodes, each node's apart.",
		}),
		digests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_latency_digests_total", Help: "Digests received, by what became of them.",
		}, []string{"result"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_latency_digest_sent_bytes_total", Help: "Bytes of digests made for other nodes.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_latency_dropped_cells_total", Help: "Pairs of prefix and zone from other nodes dropped for want of room.",
		}),
	}
	for i := range m.samples {
		m.samples[i] = samples.WithLabelValues(routing.Source(i).String())
	}
	if reg != nil {
		reg.MustRegister(samples, m.rejected, m.own, m.merged, m.digests, m.sent, m.dropped)
	}
	return m
}

func (m *metrics) sample(src routing.Source) {
	if int(src) < len(m.samples) {
		m.samples[src].Inc()
	}
}
