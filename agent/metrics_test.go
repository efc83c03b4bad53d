package agent_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/api"
)

// TestMetrics are read while the agent works, and say what it has and did.
func TestMetrics(t *testing.T) {
	f := newFaked(t)
	f.run(t)
	reads := func(want ...string) {
		t.Helper()
		var got []string
		waitUntil(t, func() bool {
			got = nil
			for line, value := range gathered(t, f) {
				got = append(got, fmt.Sprint(line, " ", value))
			}
			slices.Sort(got)
			return !slices.ContainsFunc(want, func(line string) bool { return !slices.Contains(got, line) }) || t.Context().Err() != nil
		})
		if diff := cmp.Diff(want, slices.DeleteFunc(got, func(line string) bool { return !slices.Contains(want, line) })); diff != "" {
			t.Errorf("figures differ (-want +got):\n%s", diff)
		}
	}
	f.put("p", services("web", "web"))
	f.put("q", services("web"))
	f.wait(t, "p", phase(api.PhaseRunning))
	f.wait(t, "q", phase(api.PhaseRunning))
	reads("cara_agent_connected 1", "cara_agent_containers 3", "cara_agent_engine_up 1", "cara_agent_orphans_swept_total 0",
		"cara_agent_projects Running 2", "cara_agent_pulls_running 0", "cara_agent_reports_waiting 0")

	f.engine.Down(true)
	reads("cara_agent_engine_up 0")
	f.engine.Down(false)
	reads("cara_agent_engine_up 1")
	f.terminate("q")
	f.wait(t, "q", gone)
	reads("cara_agent_containers 2", "cara_agent_projects Running 1")
}

// gathered are the agent's metrics: values by name and labels.
func gathered(t *testing.T, f *faked) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f.agent.Metrics())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			line := family.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			out[line] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}
