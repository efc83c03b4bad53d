package ports

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Where connections come from. Another agent has counted a client's connection too.
const (
	fromClient = "client"
	fromAgent  = "agent"
)

// Directions of data.
const (
	received = "received" // from clients
	sent     = "sent"     // to clients
)

// metrics counts connections and datagrams by project. There are never more series than projects with ports or with hosts whose TLS is passed through.
type metrics struct {
	open      *prometheus.GaugeVec
	total     *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	unclaimed prometheus.Counter
	datagrams datagramMetrics

	hosts Hosts // optional

	mu       sync.Mutex
	projects map[string]bool
}

// series are the metrics of one project. A nil *series counts nothing.
type series struct {
	open    prometheus.Gauge
	total   prometheus.Counter
	in, out prometheus.Counter
}

func newMetrics(into prometheus.Registerer, hosts Hosts) *metrics {
	if into == nil {
		into = prometheus.NewRegistry() // nobody reads it
	}
	m := &metrics{
		hosts: hosts,
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cara_ports_connections_open", Help: "Open connections to the ports of projects and to hosts whose TLS is passed through, from clients or from other agents.",
		}, []string{"project", "from"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ports_connections_total", Help: "Connections that reached their service, from clients or from other agents.",
		}, []string{"project", "from"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ports_bytes_total", Help: "Bytes from clients (received) and to clients (sent), over TCP and UDP.",
		}, []string{"project", "from", "direction"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ports_refused_total", Help: "Connections that were refused, by reason.",
		}, []string{"project", "reason"}),
		unclaimed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cara_ports_unclaimed_total", Help: "Connections and datagrams that were refused because no project has the port any more.",
		}),
		datagrams: newDatagramMetrics(),
		projects:  map[string]bool{},
	}
	into.MustRegister(m.open, m.total, m.bytes, m.refusals, m.unclaimed)
	d := &m.datagrams
	into.MustRegister(d.open, d.total, d.evicted, d.passed, d.dropped)
	return m
}

// keep removes the series of projects that have no ports any more.
func (m *metrics) keep(projects map[string]*carav1.ProjectPorts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.projects {
		if projects[name] != nil || m.hosts != nil && m.hosts.Passes(name) {
			continue
		}
		for _, vec := range []interface {
			DeletePartialMatch(prometheus.Labels) int
		}{m.open, m.total, m.bytes, m.refusals, m.datagrams.open, m.datagrams.total, m.datagrams.evicted, m.datagrams.passed, m.datagrams.dropped} {
			vec.DeletePartialMatch(prometheus.Labels{"project": name})
		}
		delete(m.projects, name)
	}
	for name := range projects {
		m.projects[name] = true
	}
}

// count counts what was refused or dropped.
func (m *metrics) count(in *prometheus.CounterVec, project, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.has(project) {
		m.unclaimed.Inc()
		return
	}
	in.WithLabelValues(project, reason).Inc()
}

// has reports whether a project has series. mu is held.
func (m *metrics) has(project string) bool {
	if !m.projects[project] && m.hosts != nil && m.hosts.Passes(project) {
		m.projects[project] = true
	}
	return m.projects[project]
}

// of returns the series of a project, or nil if it has no ports any more.
func (m *metrics) of(project, from string) *series {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.has(project) {
		return nil
	}
	return &series{
		open: m.open.WithLabelValues(project, from), total: m.total.WithLabelValues(project, from),
		in: m.bytes.WithLabelValues(project, from, received), out: m.bytes.WithLabelValues(project, from, sent),
	}
}

func (s *series) begin() {
	if s != nil {
		s.open.Inc()
		s.total.Inc()
	}
}

func (s *series) end() {
	if s != nil {
		s.open.Dec()
	}
}

func (s *series) received(n int) {
	if s != nil {
		s.in.Add(float64(n))
	}
}

func (s *series) sent(n int) {
	if s != nil {
		s.out.Add(float64(n))
	}
}
