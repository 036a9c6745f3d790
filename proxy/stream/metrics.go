package stream

import (
	"github.com/prometheus/client_golang/prometheus"
)

// direction of packets and bytes.
type direction uint8

const (
	up   direction = iota // from client to server
	down                  // from server to client
)

var directionNames = [...]string{"up", "down"}

// drop is why a datagram or a connection was not relayed.
type drop uint8

const (
	dropFull     drop = iota // streams.NAME.max_sessions is reached
	dropDraining             // no new sessions
	dropNoServer             // no server could be connected to
	dropWaiting              // too many datagrams before the server's socket was there
	dropSource               // a source address that nobody can answer
	dropTooBig               // larger than a datagram can be on that path
	dropRefused              // the server's host says that nothing listens there
	dropSend                 // another error when sending
	dropKernel               // the kernel's receive queue was full
	numDrops
)

var dropNames = [...]string{"full", "draining", "no_server", "waiting", "source", "too_big", "refused", "send", "kernel"}

// String is the value of the reason label.
func (d drop) String() string { return dropNames[d] }

// counters are those of one stream, looked up once so that a packet costs no label lookup.
type counters struct {
	packets  [2]prometheus.Counter // udp only
	bytes    [2]prometheus.Counter
	drops    [numDrops]prometheus.Counter
	live     prometheus.Gauge
	started  prometheus.Counter
	ended    [numEndings]prometheus.Counter
	duration prometheus.Observer
}

type metrics struct {
	packets, bytes, drops, started, ended *prometheus.CounterVec
	live                                  *prometheus.GaugeVec
	duration                              *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "nearzone_stream_" + name, Help: help}, append([]string{"stream", "network"}, labels...))
	}
	m := &metrics{
		packets: counter("packets_total", "Datagrams relayed.", "direction"),
		bytes:   counter("bytes_total", "Payload bytes relayed, without PROXY protocol headers.", "direction"),
		drops:   counter("drops_total", "Datagrams and connections not relayed.", "reason"),
		started: counter("sessions_started_total", "Sessions begun."),
		ended:   counter("sessions_ended_total", "Sessions over.", "reason"),
		live: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nearzone_stream_sessions", Help: "Sessions under way."}, []string{"stream", "network"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "nearzone_stream_session_duration_seconds", Help: "How long sessions lasted.",
			Buckets: []float64{1, 10, 60, 300, 1800, 3600, 4 * 3600}}, []string{"stream", "network"}),
	}
	reg.MustRegister(m.packets, m.bytes, m.drops, m.started, m.ended, m.live, m.duration)
	return m
}

// of are the counters of a stream.
func (m *metrics) of(stream, network string) *counters {
	c := &counters{
		live:     m.live.WithLabelValues(stream, network),
		started:  m.started.WithLabelValues(stream, network),
		duration: m.duration.WithLabelValues(stream, network),
	}
	for i, name := range directionNames {
		c.packets[i] = m.packets.WithLabelValues(stream, network, name)
		c.bytes[i] = m.bytes.WithLabelValues(stream, network, name)
	}
	for i := range c.drops {
		c.drops[i] = m.drops.WithLabelValues(stream, network, drop(i).String())
	}
	for i := range c.ended {
		c.ended[i] = m.ended.WithLabelValues(stream, network, ending(i).String())
	}
	return c
}

// relayed counts a datagram.
func (c *counters) relayed(d direction, n int) {
	c.packets[d].Inc()
	c.bytes[d].Add(float64(n))
}

func (c *counters) drop(why drop, n int) { c.drops[why].Add(float64(n)) }

func (c *counters) start() {
	c.started.Inc()
	c.live.Inc()
}

func (c *counters) end(why ending, lasted float64) {
	c.live.Dec()
	c.ended[why].Inc()
	c.duration.Observe(lasted)
}
