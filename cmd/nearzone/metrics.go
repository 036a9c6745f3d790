package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the node as a whole counts; each room has its own beside them.
type metrics struct {
	reloaded   prometheus.Gauge
	reloadedAt prometheus.Gauge
	leaving    prometheus.Gauge
	drained    *prometheus.GaugeVec // by target
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "nearzone_build_info", Help: "Always 1; the version is its label."}, []string{"version"})
	info.WithLabelValues(versionString()).Set(1)
	reg.MustRegister(info)
	m := &metrics{
		reloaded:   gauge("nearzone_config_last_reload_successful", "Whether the last reading of the configuration was taken."),
		reloadedAt: gauge("nearzone_config_last_reload_success_timestamp_seconds", "When a configuration was last taken."),
		leaving:    gauge("nearzone_node_leaving", "Whether this node is draining to stop."),
		drained: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nearzone_fleet_drained", Help: "1 for each zone or node that an operator took out of the answers."}, []string{"target"}),
	}
	reg.MustRegister(m.drained)
	m.reload(nil)
	return m
}

// drain notes an order of the drain log.
func (m *metrics) drain(order drainOrder) {
	if order.Undo {
		m.drained.DeleteLabelValues(order.Target)
		return
	}
	m.drained.WithLabelValues(order.Target).Set(1)
}

// reload notes how a reload went.
func (m *metrics) reload(err error) {
	if err != nil {
		m.reloaded.Set(0)
		return
	}
	m.reloaded.Set(1)
	m.reloadedAt.Set(float64(time.Now().Unix()))
}
