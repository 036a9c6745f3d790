package dnsserver

import (
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/routing"
)

// transport is how a query came.
type transport uint8

const (
	overUDP transport = iota
	overTCP
)

var transportNames = [...]string{"udp", "tcp"}

func (t transport) String() string { return transportNames[t] }

// counted are the types and RCODEs with a label of their own; strangers may ask for 65,536 types.
var (
	countedTypes = map[uint16]string{
		dns.TypeA: "A", dns.TypeAAAA: "AAAA", dns.TypeANY: "ANY", dns.TypeCAA: "CAA", dns.TypeCNAME: "CNAME",
		dns.TypeDS: "DS", dns.TypeDNSKEY: "DNSKEY", dns.TypeHTTPS: "HTTPS", dns.TypeMX: "MX", dns.TypeNS: "NS",
		dns.TypeSOA: "SOA", dns.TypeSRV: "SRV", dns.TypeSVCB: "SVCB", dns.TypeTXT: "TXT",
	}
	countedCodes = map[int]string{
		dns.RcodeSuccess: "NOERROR", dns.RcodeFormatError: "FORMERR", dns.RcodeServerFailure: "SERVFAIL",
		dns.RcodeNameError: "NXDOMAIN", dns.RcodeNotImplemented: "NOTIMP", dns.RcodeRefused: "REFUSED", dns.RcodeBadVers: "BADVERS",
	}
)

type metrics struct {
	queries   *prometheus.CounterVec
	steered   *prometheus.CounterVec
	malformed *prometheus.CounterVec
	failOpen  prometheus.Counter
	truncated prometheus.Counter
	unsent    prometheus.Counter
	panics    prometheus.Counter
	tcpConns  prometheus.Gauge
	tcpShed   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_queries_total", Help: "Queries answered, by type, RCODE and protocol.",
		}, []string{"type", "rcode", "protocol"}),
		steered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_steered_answers_total", Help: "Address answers for steered names, by the zone named and why.",
		}, []string{"zone", "reason"}),
		malformed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_malformed_total", Help: "Packets that are no proper query, by what is wrong with them.",
		}, []string{"fault"}),
		failOpen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_fail_open_answers_total", Help: "Answers that name nodes although none of the name's zones is up.",
		}),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_truncated_total", Help: "Answers over UDP that were cut, with TC set.",
		}),
		unsent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_unsent_total", Help: "Answers that the network did not take.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_panics_total", Help: "Queries answered with SERVFAIL since answering them panicked: a fault of this program.",
		}),
		tcpConns: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nearzone_dnsserver_tcp_connections", Help: "Open TCP connections.",
		}),
		tcpShed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nearzone_dnsserver_tcp_shed_total", Help: "TCP connections closed since there were too many: new ones of a client that has its share, idle ones when all is taken.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.queries, m.steered, m.malformed, m.failOpen, m.truncated, m.unsent, m.panics, m.tcpConns, m.tcpShed)
	}
	return m
}

func (m *metrics) answered(q *query, rcode int, via transport) {
	typ, code := "none", "other"
	if q.asked {
		typ = label(countedTypes, q.typ)
	}
	code = label(countedCodes, rcode)
	m.queries.WithLabelValues(typ, code, via.String()).Inc()
}

func (m *metrics) steeredTo(a *routing.Answer) {
	m.steered.WithLabelValues(a.Zone, a.Reason.String()).Inc()
	if a.FailOpen {
		m.failOpen.Inc()
	}
}

func label[K comparable](names map[K]string, k K) string {
	if name, ok := names[k]; ok {
		return name
	}
	return "other"
}
