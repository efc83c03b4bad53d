package loop

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"
)

// Metrics holds the metrics of all queues of a program, labelled by queue. They mean the same as the metrics of Kubernetes'
// work queues.
type Metrics struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries, panics      *prometheus.CounterVec
	latency, work              *prometheus.HistogramVec
}

// NewMetrics returns Metrics that a registry can collect.
func NewMetrics() *Metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "cara_queue_" + name, Help: help}, []string{"queue"})
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cara_queue_" + name, Help: help}, []string{"queue"})
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cara_queue_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0001, 10, 8),
		}, []string{"queue"})
	}
	return &Metrics{
		depth:      gauge("depth", "Keys that wait for a worker."),
		unfinished: gauge("unfinished_seconds", "Time that the work at hand has taken, summed over the workers."),
		longest:    gauge("longest_running_seconds", "Time that the longest work at hand has taken."),
		adds:       counter("adds_total", "Keys added."),
		retries:    counter("retries_total", "Work that failed and is tried again."),
		panics:     counter("panics_total", "Work that panicked."),
		latency:    histogram("latency_seconds", "Time that a key waited for a worker."),
		work:       histogram("work_seconds", "Time that work on a key took."),
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.depth, m.unfinished, m.longest, m.adds, m.retries, m.panics, m.latency, m.work}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(out)
	}
}

// provider implements client-go's MetricsProvider. The retry counter of client-go's queue is left out, because it counts every
// delayed key, including keys that did not fail.
type provider struct{ m *Metrics }

func (p provider) NewDepthMetric(queue string) workqueue.GaugeMetric {
	return p.m.depth.WithLabelValues(queue)
}

func (p provider) NewAddsMetric(queue string) workqueue.CounterMetric {
	return p.m.adds.WithLabelValues(queue)
}

func (p provider) NewLatencyMetric(queue string) workqueue.HistogramMetric {
	return p.m.latency.WithLabelValues(queue)
}

func (p provider) NewWorkDurationMetric(queue string) workqueue.HistogramMetric {
	return p.m.work.WithLabelValues(queue)
}

func (p provider) NewUnfinishedWorkSecondsMetric(queue string) workqueue.SettableGaugeMetric {
	return p.m.unfinished.WithLabelValues(queue)
}

func (p provider) NewLongestRunningProcessorSecondsMetric(queue string) workqueue.SettableGaugeMetric {
	return p.m.longest.WithLabelValues(queue)
}

func (provider) NewRetriesMetric(string) workqueue.CounterMetric { return uncounted{} }

type uncounted struct{}

func (uncounted) Inc() {}
