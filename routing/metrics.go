package routing

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	answers  *prometheus.CounterVec // zone, reason
	failOpen *prometheus.CounterVec // name
	failing  *prometheus.GaugeVec   // name
	prefixes prometheus.Gauge
	built    prometheus.Gauge
	builds   prometheus.Histogram
	moves    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_routing_answers_total", Help: "Answers given, by the zone named and the reason.",
		}, []string{"zone", "reason"}),
		failOpen: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_routing_fail_open_answers_total", Help: "Answers that named a zone although none of the name's zones could be named by the rules.",
		}, []string{"name"}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nearzone_routing_name_failing_open", Help: "1 while the last answer for the name failed open.",
		}, []string{"name"}),
		prefixes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nearzone_routing_measured_prefixes", Help: "Prefixes with samples in the current table.",
		}),
		built: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nearzone_routing_built_timestamp_seconds", Help: "When the current table was built.",
		}),
		builds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "nearzone_routing_build_duration_seconds", Help: "Time to build a table.", Buckets: []float64{.001, .005, .02, .1, .5, 2},
		}),
		moves: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_routing_moves_total", Help: "Prefixes whose first zone changed at a build, counted once for each set of names that answer alike.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.answers, m.failOpen, m.failing, m.prefixes, m.built, m.builds, m.moves)
	}
	return m
}

// zoneCounters are the answer counters of one zone by reason, found beforehand to keep answers cheap.
type zoneCounters [len(reasonNames)]prometheus.Counter

func (m *metrics) zone(name string) *zoneCounters {
	var c zoneCounters
	for i, reason := range reasonNames {
		c[i] = m.answers.WithLabelValues(name, reason)
	}
	return &c
}

// forget drops the series of a name that is steered no more, lest it seem to fail open for ever.
func (m *metrics) forget(name string) {
	m.failOpen.DeleteLabelValues(name)
	m.failing.DeleteLabelValues(name)
}
