package agent

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/api"
)

// Metrics returns the agent's metrics for Prometheus. Only the sizes of Managed volumes grow with the number of projects.
func (a *Agent) Metrics() prometheus.Collector {
	return collector{
		agent:      a,
		projects:   describe("projects", "Projects at this node, by the phase that they were in last.", "phase"),
		containers: describe("containers", "Containers of this agent at its last look at the engine, in any state."),
		connected:  describe("connected", "1 while the server is connected and has named all that is this node's."),
		engine:     describe("engine_up", "1 while the Docker engine answers."),
		waiting:    describe("reports_waiting", "Projects of which the server has not taken the last word yet."),
		reports:    describe("reports_total", "Reports to the server, by what became of them: taken, dropped (of something no longer in force), failed (and sent again).", "outcome"),
		pulling:    describe("pulls_running", "Images being pulled or waiting for their turn."),
		pulls:      describe("pulls_total", "Pulls that have ended, by outcome: done, failed.", "outcome"),
		volumes:    describe("volume_bytes", "Space in use by each Managed volume, as measured last, with data that a newer volume has replaced.", "project", "volume"),
		backedUp:   describe("backup_last_success_timestamp_seconds", "Time of the last successful backup of each project with backups; 0 if there is none.", "project"),
		notBacked:  describe("backup_failed", "1 if the last backup of the project failed.", "project"),
		swept:      describe("orphans_swept_total", "Projects that nobody owned and of which everything was removed."),
	}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cara_agent_"+name, help, labels, nil)
}

type collector struct {
	agent                                                                                                          *Agent
	projects, containers, connected, engine, waiting, reports, pulling, pulls, volumes, swept, backedUp, notBacked *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.projects, c.containers, c.connected, c.engine, c.waiting, c.reports, c.pulling, c.pulls, c.volumes, c.swept, c.backedUp, c.notBacked,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector. It does not call the engine.
func (c collector) Collect(out chan<- prometheus.Metric) {
	a := c.agent
	phases, synced := a.assignments.census()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v *atomic.Int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	for phase, n := range phases {
		gauge(c.projects, n, phase)
	}
	gauge(c.connected, one(synced))
	gauge(c.engine, one(a.machine.engine.error() == nil))
	gauge(c.containers, int(a.watcher.containers.Load()))
	gauge(c.waiting, a.reports.waiting())
	gauge(c.pulling, a.pulls.Running())
	counter(c.reports, &a.reports.taken, "taken")
	counter(c.reports, &a.reports.dropped, "dropped")
	counter(c.reports, &a.reports.failed, "failed")
	counter(c.pulls, &a.pulls.Pulled, "done")
	counter(c.pulls, &a.pulls.Failed, "failed")
	counter(c.swept, &a.watcher.swept)
	for project, status := range a.backups.states() {
		gauge(c.backedUp, int(status.GetLastSuccess().GetSeconds()), project)
		gauge(c.notBacked, one(status.GetState() == api.BackupFailed), project)
	}
	for v, bytes := range a.inventory.bytes() {
		out <- prometheus.MustNewConstMetric(c.volumes, prometheus.GaugeValue, float64(bytes), v[0], v[1])
	}
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
