package fleet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are this node's. Topics and logs are constants of our own code, so that they are few enough for labels.
type metrics struct {
	messagesIn, messagesOut *prometheus.CounterVec
	bytesIn, bytesOut       *prometheus.CounterVec
	dropped                 *prometheus.CounterVec
	slowPeers               prometheus.Counter
	connected, peers        prometheus.Gauge
	reconnects              prometheus.Counter
	appendSeconds           *prometheus.HistogramVec
	appendErrors            *prometheus.CounterVec
	position                *prometheus.GaugeVec
	regressions             *prometheus.CounterVec
	tlsErrors               prometheus.Counter
	panics                  prometheus.Counter
	logFailing              prometheus.Gauge
	logReopens              prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "nearzone_fleet_" + name, Help: help})
	}
	counters := func(name, label, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "nearzone_fleet_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "nearzone_fleet_" + name, Help: help})
	}
	return &metrics{
		messagesIn:  counters("messages_received_total", "topic", "Messages from other nodes handed to subscribers."),
		messagesOut: counters("messages_published_total", "topic", "Messages published to other nodes."),
		bytesIn:     counters("received_bytes_total", "topic", "Bytes of the messages from other nodes."),
		bytesOut:    counters("published_bytes_total", "topic", "Bytes of the messages to other nodes."),
		dropped:     counters("messages_dropped_total", "topic", "Messages lost because a subscriber here was slow."),
		slowPeers:   counter("slow_peers_total", "Connections closed because the peer did not read fast enough."),
		connected:   gauge("connected", "1 when this node can reach the hub, is it, or is alone."),
		peers:       gauge("peers", "Nodes connected to this one."),
		reconnects:  counter("reconnects_total", "Times the link to the hub came back."),
		appendSeconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "nearzone_fleet_append_seconds", Help: "Time until an entry of a log was synced to disk.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"log"}),
		appendErrors: counters("append_errors_total", "log", "Entries that were not acknowledged."),
		position: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nearzone_fleet_log_position", Help: "Sequence number of the last entry that was applied.",
		}, []string{"log"}),
		regressions: counters("log_regressions_total", "log", "Times a log did not continue where this node stopped."),
		panics:      counter("panics_total", "Messages passed over since what was done with them panicked: a fault of this program."),
		logFailing:  gauge("log_failing", "1 when this hub's disk does not take entries of the logs."),
		logReopens:  counter("log_reopens_total", "Times the logs were opened again, after the disk had not taken an entry."),
		tlsErrors:   counter("handshake_errors_total", "Connections refused before they were known to be of the fleet."),
	}
}

func (m *metrics) appended(log string, took time.Duration, err error) {
	if err != nil {
		m.appendErrors.WithLabelValues(log).Inc()
		return
	}
	m.appendSeconds.WithLabelValues(log).Observe(took.Seconds())
}
