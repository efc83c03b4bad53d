package ingress

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts requests by project and service. There are never more series than routed services: the series of a service
// appear with its first request, and disappear when no host leads to it. They are counted for the plots of the usage, too, so
// also without Prometheus.
type metrics struct {
	requests *prometheus.CounterVec
	inFlight *prometheus.GaugeVec
	seconds  *prometheus.HistogramVec
	sent     *prometheus.CounterVec
	received *prometheus.CounterVec
	unrouted prometheus.Counter

	mu     sync.RWMutex
	routed map[target]bool
	series map[seriesKey]*series
}

// target is the destination of routes. A redirect has no service.
type target struct{ project, service string }

// seriesKey separates requests from clients and requests forwarded by another agent, which that agent has counted too.
type seriesKey struct {
	target
	from string
}

// series are the metrics of one key, looked up once. A nil *series counts nothing.
type series struct {
	classes        [6]prometheus.Counter // by the first digit of the status; 0 is unused
	total          atomic.Uint64
	inFlight       prometheus.Gauge
	seconds        prometheus.Observer
	sent, received prometheus.Counter
}

const (
	fromClient = "client"
	fromPeer   = "agent"
)

func newMetrics(into prometheus.Registerer, connections, hosts, lost func() float64) *metrics {
	register, by := promauto.With(into), []string{"project", "service", "from"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(by, labels...))
	}
	gauge := func(name, help string, value func() float64) {
		register.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	gauge("cara_ingress_connections", "Connections of clients that are open, idle ones among them.", connections)
	gauge("cara_ingress_hosts", "Hosts whose routes the agent has.", hosts)
	register.NewCounterFunc(prometheus.CounterOpts{Name: "cara_ingress_access_log_lost_lines_total", Help: "Lines that the access log could not take."}, lost)
	return &metrics{
		requests: counter("cara_ingress_requests_total", "Requests that are over, by the class of their status; 4xx has those whose client left.", "code"),
		inFlight: register.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cara_ingress_requests_in_flight", Help: "Requests that are not over, WebSockets among them.",
		}, by),
		seconds: register.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cara_ingress_request_seconds", Help: "Time from a request's header to its answer's last byte, upgraded connections left out.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, by),
		sent:     counter("cara_ingress_sent_bytes_total", "Bytes of answers' bodies, and to clients of upgraded connections."),
		received: counter("cara_ingress_received_bytes_total", "Bytes of requests' bodies, and from clients of upgraded connections."),
		unrouted: register.NewCounter(prometheus.CounterOpts{Name: "cara_ingress_unrouted_requests_total", Help: "Requests for hosts that no project claims."}),
		series:   map[seriesKey]*series{},
	}
}

// route updates the routed services and drops the series of others.
func (f *metrics) route(hosts map[string]site) {
	routed := map[target]bool{}
	for _, s := range hosts {
		for _, r := range s {
			routed[target{r.Project, r.Service}] = true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.routed = routed
	for key := range f.series {
		if routed[key.target] {
			continue
		}
		delete(f.series, key)
		of := prometheus.Labels{"project": key.project, "service": key.service, "from": key.from}
		f.requests.DeletePartialMatch(of)
		for _, v := range []interface{ Delete(prometheus.Labels) bool }{f.inFlight, f.seconds, f.sent, f.received} {
			v.Delete(of)
		}
	}
}

// passed returns how many requests for a service are over, from clients and from other agents. ok is false if no host leads to it.
func (f *metrics) passed(of target) (n uint64, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, from := range []string{fromClient, fromPeer} {
		if s := f.series[seriesKey{of, from}]; s != nil {
			n += s.total.Load()
		}
	}
	return n, f.routed[of]
}

// of returns the series of a request, or nil if its service lost its last host meanwhile.
func (f *metrics) of(x *exchange) *series {
	key := seriesKey{target{x.route.Project, x.route.Service}, fromClient}
	if x.via != "" {
		key.from = fromPeer
	}
	f.mu.RLock()
	s := f.series[key]
	f.mu.RUnlock()
	if s != nil {
		return s
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s = f.series[key]; s == nil && f.routed[key.target] {
		s = f.newSeries(key)
		f.series[key] = s
	}
	return s
}

func (f *metrics) newSeries(key seriesKey) *series {
	by := []string{key.project, key.service, key.from}
	s := &series{
		inFlight: f.inFlight.WithLabelValues(by...), seconds: f.seconds.WithLabelValues(by...),
		sent: f.sent.WithLabelValues(by...), received: f.received.WithLabelValues(by...),
	}
	for class, code := range []string{"", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		if code != "" {
			s.classes[class] = f.requests.WithLabelValues(append(by, code)...)
		}
	}
	return s
}

func (s *series) begin() {
	if s != nil {
		s.inFlight.Inc()
	}
}

// count counts a completed request.
func (f *metrics) count(x *exchange, took time.Duration) {
	s := x.series
	if x.route == nil {
		f.unrouted.Inc()
	}
	if s == nil {
		return
	}
	s.inFlight.Dec()
	s.total.Add(1)
	if class := x.status / 100; class > 0 && class < len(s.classes) {
		s.classes[class].Inc()
	}
	if !x.upgraded {
		s.seconds.Observe(took.Seconds())
	}
	s.sent.Add(float64(x.sent.Load()))
	s.received.Add(float64(x.received.Load()))
}
