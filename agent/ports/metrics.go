package ports

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

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
	connections, sessions     *prometheus.GaugeVec // open ones of TCP, and of UDP
	connected, begun, evicted *prometheus.CounterVec
	bytes, datagrams          *prometheus.CounterVec
	refusals, dropped         *prometheus.CounterVec
	unclaimed                 prometheus.Counter

	hosts Hosts // optional

	mu       sync.Mutex
	projects map[string]bool
}

// series are the metrics of the connections, or of the sessions, of one project. A nil *series counts nothing.
type series struct {
	open                      prometheus.Gauge
	total                     prometheus.Counter
	in, out                   prometheus.Counter // bytes
	evicted                   prometheus.Counter // sessions; nil for connections, like the datagrams
	datagramsIn, datagramsOut prometheus.Counter
}

func newMetrics(into prometheus.Registerer, hosts Hosts) *metrics {
	register := promauto.With(into)
	gauge := func(name, help string) *prometheus.GaugeVec {
		return register.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"project", "from"})
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"project"}, labels...))
	}
	return &metrics{
		hosts: hosts, projects: map[string]bool{},
		connections: gauge("cara_ports_connections_open", "Open connections to the ports of projects and to hosts whose TLS is passed through, from clients or from other agents."),
		connected:   counter("cara_ports_connections_total", "Connections that reached their service, from clients or from other agents.", "from"),
		bytes:       counter("cara_ports_bytes_total", "Bytes from clients (received) and to clients (sent), over TCP and UDP.", "from", "direction"),
		refusals:    counter("cara_ports_refused_total", "Connections that were refused, by reason.", "reason"),
		sessions:    gauge("cara_ports_sessions_open", "UDP sessions with the ports of projects, from clients or from other agents."),
		begun:       counter("cara_ports_sessions_total", "UDP sessions that began, from clients or from other agents.", "from"),
		evicted:     counter("cara_ports_sessions_evicted_total", "UDP sessions that ended early because clients had too many.", "from"),
		datagrams:   counter("cara_ports_datagrams_total", "Datagrams from clients (received) and to clients (sent).", "from", "direction"),
		dropped:     counter("cara_ports_dropped_total", "Datagrams that were dropped, by reason.", "reason"),
		unclaimed: register.NewCounter(prometheus.CounterOpts{
			Name: "cara_ports_unclaimed_total", Help: "Connections and datagrams that were refused because no project has the port any more.",
		}),
	}
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
		}{m.connections, m.connected, m.bytes, m.refusals, m.sessions, m.begun, m.evicted, m.datagrams, m.dropped} {
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

// connection returns the series of a project's connections, or nil if it has no ports any more.
func (m *metrics) connection(project, from string) *series {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.has(project) {
		return nil
	}
	return &series{
		open: m.connections.WithLabelValues(project, from), total: m.connected.WithLabelValues(project, from),
		in: m.bytes.WithLabelValues(project, from, received), out: m.bytes.WithLabelValues(project, from, sent),
	}
}

// session returns the series of a project's sessions, or nil if it has no ports any more.
func (m *metrics) session(project, from string) *series {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.projects[project] {
		return nil
	}
	return &series{
		open: m.sessions.WithLabelValues(project, from), total: m.begun.WithLabelValues(project, from), evicted: m.evicted.WithLabelValues(project, from),
		in: m.bytes.WithLabelValues(project, from, received), out: m.bytes.WithLabelValues(project, from, sent),
		datagramsIn: m.datagrams.WithLabelValues(project, from, received), datagramsOut: m.datagrams.WithLabelValues(project, from, sent),
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

func (s *series) evict() {
	if s != nil {
		s.evicted.Inc()
	}
}

// received counts n bytes from a client, of one datagram if it is a session.
func (s *series) received(n int) {
	if s != nil {
		add(s.in, s.datagramsIn, n)
	}
}

// sent counts n bytes to a client, like received.
func (s *series) sent(n int) {
	if s != nil {
		add(s.out, s.datagramsOut, n)
	}
}

func add(bytes, datagrams prometheus.Counter, n int) {
	bytes.Add(float64(n))
	if datagrams != nil {
		datagrams.Inc()
	}
}
