package store

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	evicted atomic.Int64
}

// newMetrics reads the store's own counters when scraped, so that no request pays for them.
func newMetrics(reg prometheus.Registerer, s *Store) *metrics {
	m := &metrics{}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("nearzone_store_memory_bytes", "Bytes charged to the memory budget, fills under way included.",
		func() float64 { return float64(s.used.Load()) })
	gauge("nearzone_store_budget_bytes", "The memory budget in bytes.",
		func() float64 { return float64(s.budget) })
	gauge("nearzone_store_objects", "Objects in memory, each variant counted.",
		func() float64 { return float64(s.objects.Load()) })
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "nearzone_store_evictions_total", Help: "Objects evicted from memory to make room.",
	}, func() float64 { return float64(m.evicted.Load()) }))
	return m
}
