package devlog

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func project(generation, observed int32, phase string, conditions ...*carav1.Condition) *carav1.Project {
	return &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "web", Generation: generation},
		Status: &carav1.ProjectStatus{
			Phase: phase, ObservedGeneration: observed, Conditions: conditions, Hosts: []string{"web.localhost", "web.example.com"},
		},
	}
}

func condition(typ, reason, message string) *carav1.Condition {
	return &carav1.Condition{Type: typ, Status: api.StatusFalse, Reason: reason, Message: message}
}

func node(state string) *carav1.Node {
	return &carav1.Node{Metadata: &carav1.ObjectMeta{Name: "dev"}, Status: &carav1.NodeStatus{State: state}}
}

func source(problems ...*carav1.FileProblem) *carav1.Source {
	return &carav1.Source{
		Metadata: &carav1.ObjectMeta{Name: "dev"},
		Status:   &carav1.SourceStatus{Snapshot: &carav1.Snapshot{FileErrors: problems}},
	}
}

func warned(messages ...string) *carav1.Source {
	s := source()
	for _, m := range messages {
		s.Status.Snapshot.Warnings = append(s.Status.Snapshot.Warnings, &carav1.FileProblem{File: "shop/" + m[:1] + ".yaml", Message: m[1:]})
	}
	return s
}

func TestNarrator(t *testing.T) {
	leaving := project(2, 2, api.PhaseTerminating)
	leaving.Metadata.DeletionTimestamp = timestamppb.New(time.Unix(0, 0))
	running := "http://web.localhost:8081/ http://127.0.0.1:8081/ (Host: web.example.com)"
	steps := []struct {
		after   time.Duration
		object  proto.Message
		deleted bool
		want    []string
	}{
		{0, node(api.NodeNotReady), false, nil},
		{0, project(1, 0, api.PhasePending, condition(api.CondScheduled, "NoNodeFits", "0 of 1 nodes fit: 1 NotReady")), false, nil},
		{0, node(api.NodeReady), false, nil},
		{0, project(1, 0, api.PhasePending, condition(api.CondScheduled, "Waiting", "waiting for the scheduler")), false, nil},
		{0, project(1, 0, api.PhaseScheduled), false, nil},
		{900 * time.Millisecond, project(1, 1, api.PhaseRunning), false, []string{"web Running 0.9 s " + running}},
		{time.Second, project(1, 1, api.PhaseRunning), false, nil},
		{0, source(&carav1.FileProblem{File: "web.yaml", Line: 8, Column: 7, Path: "spec.servicesx", Message: "\x1b[31munknown\nfield"}), false, []string{"web.yaml:8:7 spec.servicesx: unknown field"}},
		{0, source(&carav1.FileProblem{File: "web.yaml", Line: 8, Column: 7, Path: "spec.servicesx", Message: "\x1b[31munknown\nfield"}), false, nil},
		{0, source(), false, []string{"all files are read again without errors"}},
		{0, source(), false, nil},
		{0, warned("ais skipped: it looks like a Compose file; a source with format: Compose runs such files, and caractrl convert makes a manifest of one", "bcontains a\x1b password"), false, []string{
			"warning: shop/a.yaml is skipped: it looks like a Compose file; a source with format: Compose runs such files, and caractrl convert makes a manifest of one", "warning: shop/b.yaml contains a password",
			"to run Compose files, stop this and start cara-server dev --format Compose",
		}},
		{0, warned("ais skipped: it looks like a Compose file; a source with format: Compose runs such files, and caractrl convert makes a manifest of one", "cis odd"), false, []string{"warning: shop/c.yaml is odd"}},
		{0, source(), false, nil},
		{0, project(2, 1, api.PhaseScheduled), false, nil},
		{500 * time.Millisecond, project(2, 2, api.PhaseRunning), false, []string{"web Running 0.5 s " + running}},
		{0, project(3, 3, api.PhaseScheduled, condition(api.CondReady, api.ReasonUpdateFailed, "image not found")), false, []string{"web is not updated: image not found"}},
		{0, project(3, 3, api.PhaseFailed, condition(api.CondPhase, "ImageNotFound", "service app: no image")), false, []string{"web Failed service app: no image"}},
		{0, leaving, false, nil},
		{400 * time.Millisecond, leaving, true, []string{"web gone 0.4 s"}},
		{0, project(1, 0, api.PhasePending, condition(api.CondScheduled, "NoNodeFits", "0 of 1 nodes fit: 1 insufficient memory")), false, []string{"web Pending 0 of 1 nodes fit: 1 insufficient memory"}},
	}
	n, now := &Printer{Ingress: "127.0.0.1:8081"}, time.Unix(1000, 0)
	for i, step := range steps {
		now = now.Add(step.after)
		got := n.Take(&carav1.WatchResponse{Changes: []*carav1.Change{{Object: api.Wrap(step.object), Deleted: step.deleted}}}, now)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}
