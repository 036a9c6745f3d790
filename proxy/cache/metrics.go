package cache

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	hit, stale, revalidated, miss, bypass atomic.Int64

	requests  *prometheus.CounterVec // site, status, reason
	bytes     *prometheus.CounterVec // site, from
	waits     prometheus.Histogram
	collapsed prometheus.Counter
	filled    prometheus.Counter
	unstored  prometheus.Counter
	purges    *prometheus.CounterVec // by, soft
}

func newMetrics(reg prometheus.Registerer, c *Cache) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_cache_requests_total", Help: "Requests by what became of them and why.",
		}, []string{"site", "status", "reason"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_cache_sent_bytes_total", Help: "Bytes of bodies sent to clients, by where they came from.",
		}, []string{"site", "from"}),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "nearzone_cache_wait_seconds", Help: "How long requests waited for the head of another request's fetch.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
		collapsed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_cache_collapsed_total", Help: "Requests answered by another request's fetch.",
		}),
		filled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_cache_fill_bytes_total", Help: "Bytes read from origins into objects.",
		}),
		unstored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_cache_unstored_total", Help: "Fetches that stopped storing for want of room or past the largest object.",
		}),
		purges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_cache_purges_total", Help: "Purges applied, by what they named.",
		}, []string{"by", "soft"}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.requests, m.bytes, m.waits, m.collapsed, m.filled, m.unstored, m.purges,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nearzone_cache_fills", Help: "Fetches from origins under way.",
		}, func() float64 { return float64(c.fills.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nearzone_cache_purge_rules", Help: "Purges remembered one by one.",
		}, func() float64 { return float64(c.purges.count()) }))
	return m
}

// observe counts one request.
func (m *metrics) observe(site string, out *Outcome) {
	from := "cache"
	switch out.Status {
	case statusHit:
		m.hit.Add(1)
	case statusStale:
		m.stale.Add(1)
	case statusRevalidated:
		m.revalidated.Add(1)
	case statusMiss:
		m.miss.Add(1)
		from = "origin"
	default:
		m.bypass.Add(1)
		from = "origin"
	}
	m.requests.WithLabelValues(site, out.Status, string(out.Reason)).Inc()
	m.bytes.WithLabelValues(site, from).Add(float64(out.Bytes))
	if out.Collapsed {
		m.collapsed.Inc()
	}
}

func (m *metrics) purged(kind byte, soft bool) {
	by := map[byte]string{'u': "url", 'p': "prefix", 'h': "host", 't': "tag"}[kind]
	word := "false"
	if soft {
		word = "true"
	}
	m.purges.WithLabelValues(by, word).Inc()
}
