package ports

import "github.com/prometheus/client_golang/prometheus"

// datagramMetrics are the metrics of UDP.
type datagramMetrics struct {
	open    *prometheus.GaugeVec
	total   *prometheus.CounterVec
	evicted *prometheus.CounterVec
	passed  *prometheus.CounterVec
	dropped *prometheus.CounterVec
}

func newDatagramMetrics() datagramMetrics {
	return datagramMetrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cara_ports_sessions_open", Help: "UDP sessions with the ports of projects, from clients or from other agents.",
		}, []string{"project", "from"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ports_sessions_total", Help: "UDP sessions that began, from clients or from other agents.",
		}, []string{"project", "from"}),
		evicted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ports_sessions_evicted_total", Help: "UDP sessions that ended early because clients had too many.",
		}, []string{"project", "from"}),
		passed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ports_datagrams_total", Help: "Datagrams from clients (received) and to clients (sent).",
		}, []string{"project", "from", "direction"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ports_dropped_total", Help: "Datagrams that were dropped, by reason.",
		}, []string{"project", "reason"}),
	}
}

// datagramSeries are the metrics of the sessions of one project. A nil *datagramSeries counts nothing.
type datagramSeries struct {
	open              prometheus.Gauge
	total, evicted    prometheus.Counter
	in, out           prometheus.Counter
	bytesIn, bytesOut prometheus.Counter
}

// session returns the series of a project, or nil if it has no ports any more.
func (m *metrics) session(project, from string) *datagramSeries {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.projects[project] {
		return nil
	}
	d := &m.datagrams
	return &datagramSeries{
		open: d.open.WithLabelValues(project, from), total: d.total.WithLabelValues(project, from), evicted: d.evicted.WithLabelValues(project, from),
		in: d.passed.WithLabelValues(project, from, received), out: d.passed.WithLabelValues(project, from, sent),
		bytesIn: m.bytes.WithLabelValues(project, from, received), bytesOut: m.bytes.WithLabelValues(project, from, sent),
	}
}

func (s *datagramSeries) begin() {
	if s != nil {
		s.open.Inc()
		s.total.Inc()
	}
}

func (s *datagramSeries) end() {
	if s != nil {
		s.open.Dec()
	}
}

func (s *datagramSeries) evict() {
	if s != nil {
		s.evicted.Inc()
	}
}

func (s *datagramSeries) received(n int) {
	if s != nil {
		s.in.Inc()
		s.bytesIn.Add(float64(n))
	}
}

func (s *datagramSeries) sent(n int) {
	if s != nil {
		s.out.Inc()
		s.bytesOut.Add(float64(n))
	}
}
