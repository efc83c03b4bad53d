package certs

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts attempts. A nil Metrics counts nothing. The server itself exports what is stored about certificates.
type Metrics struct{ attempts *prometheus.CounterVec }

// NewMetrics returns Metrics that a registry can collect.
func NewMetrics() *Metrics {
	return &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cara_certificate_attempts_total", Help: "Attempts to obtain or renew a certificate, by result.",
	}, []string{"result"})}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) { m.attempts.Describe(out) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) { m.attempts.Collect(out) }

func (m *Metrics) count(ok bool) {
	if m == nil {
		return
	}
	m.attempts.WithLabelValues(map[bool]string{true: "succeeded", false: "failed"}[ok]).Inc()
}
