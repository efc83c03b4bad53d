package apiserver

import (
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rest"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// metrics counts calls for /metrics.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	latency  *prometheus.HistogramVec
}

func newMetrics(db *state.DB, others ...prometheus.Collector) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_calls_total", Help: "Calls by method and gRPC code.",
		}, []string{"method", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cara_call_seconds", Help: "Time a call took, streams included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}, []string{"method"}),
	}
	watchers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "cara_watchers", Help: "Watches that are open."},
		func() float64 { return float64(db.Watches()) })
	m.registry.MustRegister(m.calls, m.latency, watchers, newCertificates(db),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(others...)
	return m
}

func (m *metrics) observe(method string, err error, took time.Duration) {
	name := shortMethod(method)
	m.calls.WithLabelValues(name, api.Code(err).String()).Inc()
	m.latency.WithLabelValues(name).Observe(took.Seconds())
}

// figures serves the metrics to callers who may read.
func (s *Server) figures() http.Handler {
	show := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.mayRead(r); err != nil { //nolint:contextcheck // the request has it
			rest.WriteProblem(w, api.ProblemOf(api.Wire(err)))
			return
		}
		show.ServeHTTP(w, r)
	})
}

// mayRead authenticates an HTTP request without an RPC and requires a role that may read.
func (s *Server) mayRead(r *http.Request) error {
	actor, err := s.network(requestContext(r))
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(readers, actor.Role):
		return nil
	case actor.Role == api.RoleNone:
		return errNobody()
	default:
		return api.Forbidden("%s has the role %s, which may not read this", actor.Name, actor.Role)
	}
}

// certificates exports what is stored about the certificates that the server obtains.
type certificates struct {
	db         *state.DB
	count, end *prometheus.Desc
}

func newCertificates(db *state.DB) certificates {
	return certificates{
		db:    db,
		count: prometheus.NewDesc("cara_certificates", "Hosts whose certificates the server obtains, by state.", []string{"state"}, nil),
		end:   prometheus.NewDesc("cara_certificate_earliest_end_timestamp_seconds", "The earliest end of a certificate that the server has obtained.", nil, nil),
	}
}

// States of certificates in metrics.
const (
	certificateValid   = "valid"
	certificateWarned  = "renewal_failed" // it is valid, and could not be renewed yet
	certificateRecall  = "recalled"       // it is valid, and the authority wants it to be replaced at once
	certificateEnded   = "expired"
	certificateMissing = "missing"
)

// Describe implements prometheus.Collector.
func (c certificates) Describe(out chan<- *prometheus.Desc) {
	out <- c.count
	out <- c.end
}

// Collect implements prometheus.Collector.
func (c certificates) Collect(out chan<- prometheus.Metric) {
	now, count := c.db.Now(), map[string]int{certificateValid: 0, certificateWarned: 0, certificateRecall: 0, certificateEnded: 0, certificateMissing: 0}
	var earliest time.Time
	for _, o := range state.List[*carav1.CertificateOrder](c.db.Cache, "") {
		count[certificateState(o, now)]++
		if end := o.GetNotAfter(); end != nil && (earliest.IsZero() || end.AsTime().Before(earliest)) {
			earliest = end.AsTime()
		}
	}
	for name, n := range count {
		out <- prometheus.MustNewConstMetric(c.count, prometheus.GaugeValue, float64(n), name)
	}
	if !earliest.IsZero() {
		out <- prometheus.MustNewConstMetric(c.end, prometheus.GaugeValue, float64(earliest.Unix()))
	}
}

func certificateState(o *carav1.CertificateOrder, now time.Time) string {
	switch {
	case o.GetNotAfter() == nil:
		return certificateMissing
	case !now.Before(o.GetNotAfter().AsTime()):
		return certificateEnded
	case o.GetRecalled():
		return certificateRecall
	case o.GetProblem() != "":
		return certificateWarned
	}
	return certificateValid
}
