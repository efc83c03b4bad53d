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
