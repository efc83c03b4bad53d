package reconciler

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/internal/test/testlaw"
	"github.com/caravanserai/cara/plan"
)

// open returns Diff with one condition of the gate disabled: lie sets the input so that the condition holds. Lies about rows
// apply only to projects that left the source. Such a reconciler may loop forever, so it stops after a while.
func open(lie func(s *carav1.Source, r *plan.Row)) func(plan.Input) plan.Plan {
	passes := atomic.Int64{}
	return func(in plan.Input) plan.Plan {
		if passes.Add(1) > 3000 {
			return plan.Plan{Source: in.Source.Metadata.Name}
		}
		in.Source = proto.CloneOf(in.Source)
		in.Rows = slices.Clone(in.Rows)
		lie(in.Source, &plan.Row{})
		for i := range in.Rows {
			if in.Rows[i].Present() {
				continue
			}
			lie(&carav1.Source{Spec: &carav1.SourceSpec{}, Status: &carav1.SourceStatus{Snapshot: &carav1.Snapshot{}}}, &in.Rows[i])
		}
		return plan.Diff(in)
	}
}

// maxMutated is how many histories a mutant may survive; most fall within ten.
const maxMutated = 2000

// TestModelFailsWithAnOpenGate disables the conditions of the gate, one at a time. Within some hundred histories the model
// must detect a violation.
func TestModelFailsWithAnOpenGate(t *testing.T) {
	if *modelSeed != 0 {
		t.Skip("one history of TestModel is replayed")
	}
	lies := map[string]func(s *carav1.Source, r *plan.Row){
		"the snapshot did not load whole": func(s *carav1.Source, _ *plan.Row) {
			if h := s.GetStatus().GetSnapshot(); h != nil {
				h.Complete, h.ErrorCount, h.FileErrors = true, 0, nil
			}
		},
		"the source cannot be read": func(s *carav1.Source, _ *plan.Row) {
			s.Status.Conditions, _ = api.RemoveCondition(s.Status.Conditions, api.CondFetchFailed)
		},
		"more than pruneLimit":     func(s *carav1.Source, _ *plan.Row) { s.Status.ConfirmedRevision = s.Status.GetSnapshot().GetRevision() },
		"nothing is declared":      func(s *carav1.Source, _ *plan.Row) { s.Spec.AllowEmpty = true },
		"suspended":                func(s *carav1.Source, _ *plan.Row) { s.Spec.Suspend = false },
		"another source claims it": func(_ *carav1.Source, r *plan.Row) { r.Rivals = nil },
		"a person overrode git":    func(_ *carav1.Source, r *plan.Row) { r.Override = nil },
		"it is in the inventory by its uid": func(_ *carav1.Source, r *plan.Row) {
			if r.Status != nil {
				r.Status = proto.CloneOf(r.Status)
				r.Status.ProjectUid = r.UID()
			}
		},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64N(1 << 40)
			for i := range uint64(maxMutated) {
				if crimes := play(t, seed+i, open(lie), false); len(crimes) > 0 {
					t.Logf("after %d histories: %s", i+1, crimes[0])
					return
				}
			}
			t.Error("so many histories with this condition open and the model saw no crime")
		})
	}
}

// TestModelNoticesAnOpenGate deletes what each condition of the gate protects. The model must report a violation.
func TestModelNoticesAnOpenGate(t *testing.T) {
	protect := map[string]func(c *cluster){
		"nothing: lawful": func(*cluster) {},
		"the manifest is there": func(c *cluster) {
			cl := fakecluster.Read[*carav1.Claim](c.Cluster, "platform/old")
			cl.Spec.Present = true
			c.Put(cl)
		},
		"the inventory names another uid": func(c *cluster) {
			cl := fakecluster.Read[*carav1.Claim](c.Cluster, "platform/old")
			cl.Status.ProjectUid = "another"
			c.Put(cl)
		},
		"the source is suspended":       func(c *cluster) { c.with(func(s *carav1.Source) { s.Spec.Suspend = true }) },
		"the snapshot is broken":        func(c *cluster) { c.with(func(s *carav1.Source) { s.Status.Snapshot.Complete = false }) },
		"the source cannot be read":     func(c *cluster) { c.with(testlaw.FetchFailed) },
		"the inventory is a namesake's": func(c *cluster) { c.with(func(s *carav1.Source) { s.Metadata.Uid = "s9" }) },
		"another source declares it": func(c *cluster) {
			c.Put(newSource("team", "s2"), testlaw.Claim("old", "a:1", testlaw.From("team", "s2", "f.yaml")))
		},
		"a person overrode git": func(c *cluster) {
			c.Put(&carav1.Override{Metadata: &carav1.ObjectMeta{Name: "old"}, Scope: api.OverrideSpec})
		},
		"the source declares nothing": func(c *cluster) { c.Delete(api.KindClaim, "platform/stays") },
	}
	for name, f := range protect {
		t.Run(name, func(t *testing.T) {
			c := &cluster{server: newServer(), t: t}
			c.Put(testlaw.Source(), testlaw.Claim("stays", "a:1", testlaw.Applied), testlaw.Claim("old", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("old", "a:1", "source/platform"))
			f(c)
			_, err := c.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "old", Uid: "u-old", Owner: "source/platform", Reason: api.ReasonPruned})
			if err != nil {
				t.Fatal(err)
			}
			if lawful := strings.HasSuffix(name, "lawful"); (len(c.crimes) == 0) != lawful {
				t.Errorf("crimes %q", c.crimes)
			}
		})
	}
}

func (c *cluster) with(f func(*carav1.Source)) {
	s := proto.CloneOf(c.source("platform"))
	f(s)
	c.Put(s)
}
