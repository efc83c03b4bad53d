package agent_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/enginetest/failpoint"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// restarted asks for a restart of services, as the server does.
func restarted(token string, services ...string) func(*carav1.Project) {
	return func(p *carav1.Project) {
		p.Status.Restarts, p.Status.RestartToken = api.AddRestart(p, services, token), token
	}
}

// previousLog is what `logs -p` shows of a project.
func (r *onDocker) previousLog(t *testing.T, stream, project string) string {
	t.Helper()
	r.open(stream, &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: project, Previous: true}}})
	var out []string
	for _, m := range r.heard(t, stream, func([]*carav1.AttachRequest) bool { return r.closed[stream] }) {
		out = append(out, m.GetLog().GetLine()+m.GetError())
	}
	return strings.Join(out, "\n")
}

// TestRealRestartKeepsTheLog: after an operator's restart, `logs -p` shows what was written before it, whether the
// container was restarted in place or another one took over from it.
func TestRealRestartKeepsTheLog(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]string{"in place": api.UpdateStopFirst, "start-first": api.UpdateStartFirst} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReal(t)
			r.run(t)
			project := fmt.Sprint("restart-", strings.ReplaceAll(name, " ", "-"), "-", os.Getpid())
			r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{{
				Name: "a", Image: testimage.Busybox, Command: []string{"sh", "-c", "trap exit TERM; echo run of $(cat /proc/sys/kernel/random/uuid); sleep 1000 & wait"},
				Update: &carav1.Update{Order: order},
			}}})
			before := r.wait(t, project, phase(api.PhaseRunning)).GetStatus().GetServices()[0]
			r.edit(project, restarted("t1", "a"))
			after := r.wait(t, project, func(p *carav1.Project) bool {
				s := p.GetStatus().GetServices()[0]
				return api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) && s.GetStartedAt().AsTime().After(before.GetStartedAt().AsTime())
			}).GetStatus().GetServices()[0]
			if same := after.GetContainerId() == before.GetContainerId(); same != (order == api.UpdateStopFirst) {
				t.Errorf("the same container: %t", same)
			}
			waitUntil(t, func() bool { return len(r.ids(t)) == 1 })
			if log := r.previousLog(t, "previous", project); !strings.HasPrefix(log, "run of ") || strings.Count(log, "\n") > 0 {
				t.Errorf("logs -p shows %q", log)
			}
			r.terminate(project)
			r.wait(t, project, gone)
		})
	}
}

// TestRealRestartKilled kills an agent with SIGKILL around each call of a restart in place. The next agent
// finishes the restart: the container has run exactly twice.
func TestRealRestartKilled(t *testing.T) {
	t.Parallel()
	for call, moments := range map[string][]failpoint.When{
		"StopContainer#1":  {failpoint.Before, failpoint.During}, // after it is before the next
		"StartContainer#1": {failpoint.During, failpoint.After},
	} {
		if soaking() {
			moments = []failpoint.When{failpoint.Before, failpoint.During, failpoint.After}
		}
		for _, when := range moments {
			t.Run(string(when)+" "+call, func(t *testing.T) {
				t.Parallel()
				spec := &carav1.ProjectSpec{Services: []*carav1.Service{{
					Name: "a", Image: testimage.Busybox, Command: []string{"sh", "-c", "trap exit TERM; echo a run; sleep 1000 & wait"},
				}}}
				r := newReal(t)
				project := uniqueName("restart-killed")
				r.run(t)
				r.put(project, spec)
				before := r.wait(t, project, phase(api.PhaseRunning)).GetStatus().GetServices()[0]
				r.stop()
				r.edit(project, restarted("t1"))
				c := r.startChild(t, failpoint.Config{Label: call, When: when})
				waitUntil(t, c.Exited)
				if !slices.Contains(c.calls(t), call) {
					t.Fatalf("the agent made the calls %v, and never %s", c.calls(t), call)
				}
				r.run(t)
				after := r.wait(t, project, func(p *carav1.Project) bool {
					s := p.GetStatus().GetServices()[0]
					return api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) && s.GetStartedAt().AsTime().After(before.GetStartedAt().AsTime())
				}).GetStatus().GetServices()[0]
				if after.GetContainerId() != before.GetContainerId() {
					t.Error("the container was made anew")
				}
				var log []*carav1.AttachRequest
				waitUntil(t, func() bool { // the second run writes its line after it has started
					stream := fmt.Sprint(project, "-all-", time.Now().UnixNano())
					r.open(stream, &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: project}}})
					log = r.heard(t, stream, func([]*carav1.AttachRequest) bool { return r.closed[stream] })
					return len(log) > 1
				})
				if len(log) != 2 {
					t.Errorf("it has run %d times, want 2: %v", len(log), log)
				}
				r.terminate(project)
				r.wait(t, project, gone)
				r.stop()
			})
		}
	}
}
