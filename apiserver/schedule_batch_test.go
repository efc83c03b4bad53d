package apiserver

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// bindAll returns a decision for each of n waiting projects.
func (w *town) bindAll(t *testing.T, n int) *carav1.ScheduleProjectsRequest {
	t.Helper()
	req := &carav1.ScheduleProjectsRequest{}
	for i := range n {
		name := fmt.Sprintf("p-%d", i)
		fillWith(t, w.house, web(name))
		req.Decisions = append(req.Decisions, &carav1.ScheduleProjectRequest{
			Name: name, ResourceVersion: w.get(t, name).GetMetadata().GetResourceVersion(), Action: api.ScheduleBind, NodeRef: fmt.Sprintf("n%d", 1+i%2),
		})
	}
	return req
}

// TestManyDecisionsHaveAResultEach: those that are rejected do not affect the others, which share transactions.
func TestManyDecisionsHaveAResultEach(t *testing.T) {
	w := newTown(t)
	req := w.bindAll(t, 64)
	want := map[int]codes.Code{3: codes.Aborted, 20: codes.NotFound, 21: codes.NotFound, 41: codes.Aborted}
	req.Decisions[3].ResourceVersion = "1"
	req.Decisions[20].NodeRef = "nowhere"
	req.Decisions[21].Name = "nobody"
	req.Decisions[41] = &carav1.ScheduleProjectRequest{ // a second decision about a project
		Name: "p-40", ResourceVersion: req.Decisions[40].ResourceVersion, Action: api.ScheduleBind, NodeRef: "n2",
	}
	before := w.db.Cache.Revision()
	out, err := w.scheduler.ScheduleProjects(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if commits := w.db.Cache.Revision() - before; commits > 3 {
		t.Errorf("%d transactions for 60 projects", commits)
	}
	for i, r := range out.GetResults() {
		if codes.Code(r.GetCode()) != want[i] || (r.GetProblem().GetDetail() == "") != (want[i] == codes.OK) {
			t.Errorf("decision %d: %v, want %s", i, r, want[i])
		}
		if want[i] != codes.OK || i == 41 {
			continue
		}
		p := w.get(t, req.Decisions[i].Name)
		if p.GetStatus().GetPhase() != api.PhaseScheduled || p.GetStatus().GetNodeRef() != req.Decisions[i].NodeRef || r.GetEpoch() != 1 ||
			r.GetResourceVersion() != p.GetMetadata().GetResourceVersion() {
			t.Errorf("decision %d: %v after %v", i, p.GetStatus(), r)
		}
	}
	for _, name := range []string{"p-3", "p-20", "p-21"} {
		w.phase(t, name, api.PhasePending)
	}
}

// TestAConflictOfOneDecision: a project that changes while its decision is written is left as it is, and the others are bound.
func TestAConflictOfOneDecision(t *testing.T) {
	w := newTown(t)
	req := w.bindAll(t, 8)
	changed := false
	var changes []func(*state.Tx) error
	for _, d := range req.Decisions {
		changes = append(changes, func(tx *state.Tx) error {
			old, _ := state.Read[*carav1.Project](tx, d.Name)
			if !changed && d.Name == "p-5" {
				changed = true
				if err := w.db.Transact(t.Context(), func(other *state.Tx) error { return annotate(other, d.Name) }); err != nil {
					return err
				}
			}
			if old.GetMetadata().GetResourceVersion() != d.ResourceVersion {
				return api.Conflict("project %q has changed", d.Name)
			}
			p := proto.CloneOf(old)
			p.Status.NodeRef = d.NodeRef
			tx.Put(p)
			return nil
		})
	}
	for i, err := range w.db.TransactAll(t.Context(), changes) {
		if conflict := i == 5; api.IsConflict(err) != conflict || !conflict && err != nil {
			t.Errorf("change %d: %v", i, err)
		}
		if node := w.get(t, req.Decisions[i].Name).GetStatus().GetNodeRef(); (node == "") != (i == 5) {
			t.Errorf("change %d: on node %q", i, node)
		}
	}
}

func annotate(tx *state.Tx, name string) error {
	old, _ := state.Read[*carav1.Project](tx, name)
	p := proto.CloneOf(old)
	p.Metadata.Annotations = map[string]string{"changed": "yes"}
	tx.Put(p)
	return nil
}

// TestALargeChangeAmongOthers: one that cannot be stored has its own error.
func TestALargeChangeAmongOthers(t *testing.T) {
	w := newTown(t)
	var changes []func(*state.Tx) error
	for name, size := range map[string]int{"a": 1, "b": 600 << 10, "c": 1} {
		fillWith(t, w.house, web(name))
		changes = append(changes, func(tx *state.Tx) error {
			old, _ := state.Read[*carav1.Project](tx, name)
			p := proto.CloneOf(old)
			p.Metadata.Annotations = map[string]string{"x": strings.Repeat("x", size)}
			tx.Put(p)
			return nil
		})
	}
	failed := 0
	for _, err := range w.db.TransactAll(t.Context(), changes) {
		if err != nil {
			failed++
			if api.Code(err) != codes.ResourceExhausted {
				t.Error(err)
			}
		}
	}
	for name, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, has := w.get(t, name).GetMetadata().GetAnnotations()["x"]; has != want {
			t.Errorf("%s is stored: %v, want %v", name, has, want)
		}
	}
	if failed != 1 {
		t.Errorf("%d changes failed, want 1", failed)
	}
}

// TestEachDecisionIsAudited with its project and its outcome.
func TestEachDecisionIsAudited(t *testing.T) {
	c := newCluster(t, nil)
	loop, err := c.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	bind := func(name string) *carav1.ScheduleProjectRequest {
		return &carav1.ScheduleProjectRequest{Name: name, ResourceVersion: "1", Action: api.ScheduleBind, NodeRef: "n1"}
	}
	req := &carav1.ScheduleProjectsRequest{Decisions: []*carav1.ScheduleProjectRequest{bind("a"), bind("b")}}
	if _, err := carav1.NewProjectServiceClient(loop).ScheduleProjects(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the audit lines", func() bool { return len(c.auditLines("ScheduleProjects")) == 2 })
	for i, line := range c.auditLines("ScheduleProjects") {
		for _, want := range []string{"actor=system/scheduler", "object=" + req.Decisions[i].Name, "outcome=NotFound", "detail="} {
			if !strings.Contains(line, want) {
				t.Errorf("%q is missing: %s", want, line)
			}
		}
	}
}
