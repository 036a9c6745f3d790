package certs

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	expiry     *prometheus.GaugeVec   // by the certificate's first name
	refused    *prometheus.CounterVec // by reason
	fileErrors prometheus.Counter
	orders     *prometheus.CounterVec // by outcome
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		expiry: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nearzone_certs_expiry_timestamp_seconds", Help: "When the certificate served for a host expires.",
		}, []string{"host"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_certs_handshakes_refused_total", Help: "Handshakes for which there was no certificate.",
		}, []string{"reason"}),
		fileErrors: f.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_certs_file_errors_total", Help: "Times a changed certificate file was not usable.",
		}),
		orders: f.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_certs_orders_total", Help: "Attempts to get a certificate from the CA.",
		}, []string{"outcome"}),
	}
}
