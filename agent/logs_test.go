package agent_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func logsOf(request *carav1.LogsRequest) *carav1.OpenStream {
	request.Name = "p"
	return &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: request}}
}

// written waits until a stream has exactly this many lines.
func (f *faked) written(t *testing.T, id string, lines int) {
	t.Helper()
	all := f.heard(t, id, func(all []*carav1.AttachRequest) bool { return len(all) >= lines })
	if len(all) > lines {
		t.Errorf("%s: %d lines, want %d:\n%v", id, len(all), lines, all)
	}
}

// over waits until a stream has ended, and returns everything that was sent on it.
func (f *faked) over(t *testing.T, id string) []*carav1.AttachRequest {
	t.Helper()
	return f.heard(t, id, func([]*carav1.AttachRequest) bool { return f.closed[id] })
}

// TestFollow: each line arrives once, across a restart and replacements of containers, until the project is gone.
func TestFollow(t *testing.T) {
	f := newFaked(t)
	spec := services("job")
	spec.Services[0].Args = []string{"-lines", "3", "-after", "1h"}
	id := f.up(t, spec)["cara-p.a"].ID
	f.open("all", logsOf(&carav1.LogsRequest{Follow: true}))
	f.open("new", logsOf(&carav1.LogsRequest{Follow: true, Tail: -1}))
	f.written(t, "all", 3)
	f.open("previous", logsOf(&carav1.LogsRequest{Previous: true}))
	if m := f.over(t, "previous"); len(m) != 1 || codes.Code(m[0].GetCode()) != codes.NotFound || !strings.Contains(m[0].GetError(), "no previous run") {
		t.Errorf("the previous run of one that never was restarted: %v", m)
	}
	waitUntil(t, func() bool { return f.engine.Calls("Logs") >= 3 }) // both follow
	f.engine.Kill(id)
	f.written(t, "all", 6)
	f.written(t, "new", 3)
	for tail, want := range map[int32]int{0: 3, 2: 2} {
		name := []string{"previous run", "", "the last of it"}[tail]
		f.open(name, logsOf(&carav1.LogsRequest{Previous: true, Tail: tail}))
		if m := f.over(t, name); len(m) != want || m[want-1].GetLog().GetLine() != "job v1 line 3 of 3" {
			t.Errorf("%s: %v", name, m)
		}
	}
	spec = services("job")
	spec.Services[0].Args = []string{"-lines", "4", "-after", "1h"}
	f.put("p", spec)
	f.written(t, "all", 10)
	f.written(t, "new", 7)
	more := services("job", "job")
	more.Services[0].Args = spec.Services[0].Args
	more.Services[1].Args = []string{"-lines", "1", "-after", "1h"}
	f.put("p", more)
	f.written(t, "all", 11)
	f.terminate("p")
	f.wait(t, "p", gone)
	if m := f.over(t, "all"); len(m) != 11 || m[10].GetError() != "" {
		t.Errorf("the end: %v", m)
	}
	f.over(t, "new")
}

// TestFollowEnds: with services that will not run again.
func TestFollowEnds(t *testing.T) {
	f := newFaked(t)
	f.run(t)
	f.put("q", services("web"))
	f.wait(t, "q", phase(api.PhaseRunning))
	spec := services("job", "job")
	spec.Services[0].Args, spec.Services[0].RestartPolicy = []string{"-lines", "2", "-after", "100ms"}, api.RestartNever
	spec.Services[1].Args = []string{"-lines", "1", "-exit", "1"}
	f.put("p", spec)
	f.wait(t, "p", func(p *carav1.Project) bool { return len(p.GetStatus().GetServices()) == 2 })
	waitUntil(t, func() bool {
		all, err := f.engine.ListContainers(t.Context(), map[string]string{api.LabelProject: "p"})
		return err == nil && len(all) > 0
	})
	f.open("follow", logsOf(&carav1.LogsRequest{Follow: true}))
	f.open("a", logsOf(&carav1.LogsRequest{Follow: true, Services: []string{"a"}}))
	count := map[string]int{}
	for _, m := range f.over(t, "follow") {
		if m.GetError() != "" {
			t.Fatal(m.GetError())
		}
		count[m.GetLog().GetService()]++
	}
	f.wait(t, "p", phase(api.PhaseFailed))
	if count["a"] != 3 || count["b"] != 12 { // six runs, the last of which was one too many
		t.Errorf("lines by service: %v", count)
	}
	if m := f.over(t, "a"); len(m) != 3 {
		t.Errorf("one service: %v", m)
	}
	f.open("stored", logsOf(&carav1.LogsRequest{}))
	if m := f.over(t, "stored"); len(m) != 15 {
		t.Errorf("%d lines are kept of a Failed project, want 15", len(m))
	}
	f.open("none", &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: "nothing", Follow: true}}})
	if m := f.over(t, "none"); len(m) != 1 || !strings.Contains(m[0].GetError(), "has no container on node n1 yet") {
		t.Errorf("of a project that is not here: %v", m)
	}
	f.engine.Fault(func(call string) error {
		if call == "Logs" {
			return engine.ErrUnavailable
		}
		return nil
	})
	f.open("down", &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: "q", Follow: true}}})
	if m := f.over(t, "down"); len(m) != 1 || m[0].GetError() == "" {
		t.Errorf("while the engine is away: %v", m)
	}
}
