package healthcheck

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector gives the Checker's verdicts as metrics. kind tells one node's Checkers apart, such as "peers".
func (c *Checker) Collector(kind string) prometheus.Collector {
	labels := prometheus.Labels{"kind": kind}
	return checkerCollector{
		checker: c,
		up:      prometheus.NewDesc("nearzone_healthcheck_target_up", "Whether the target is up by its probes and traffic.", []string{"target"}, labels),
		rtt:     prometheus.NewDesc("nearzone_healthcheck_target_rtt_seconds", "Least round trip of the target's last successful probes.", []string{"target"}, labels),
	}
}

type checkerCollector struct {
	checker *Checker
	up, rtt *prometheus.Desc
}

func (c checkerCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.up
	ch <- c.rtt
}

func (c checkerCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.checker.Status() {
		ch <- gauge(c.up, number(s.Up), s.ID)
		if s.RTT > 0 {
			ch <- gauge(c.rtt, s.RTT.Seconds(), s.ID)
		}
	}
}

// Collector gives the fleet's verdicts on its nodes as metrics.
func (q *Quorum) Collector() prometheus.Collector {
	return quorumCollector{
		quorum: q,
		up:     prometheus.NewDesc("nearzone_healthcheck_node_up", "Whether the node is up by the votes of the fleet's zones.", []string{"node", "zone"}, nil),
	}
}

type quorumCollector struct {
	quorum *Quorum
	up     *prometheus.Desc
}

func (c quorumCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.up }

func (c quorumCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.quorum.Status(time.Now()) {
		ch <- gauge(c.up, number(s.Up), s.Node, s.Zone)
	}
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
