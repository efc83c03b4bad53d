package objects

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// PlanSource returns what a reconciliation of a source would do now. It is the reconciler's own plan, made from one view.
func (s Sources) PlanSource(_ context.Context, req *carav1.PlanSourceRequest) (*carav1.SourcePlan, error) {
	v := s.DB.Cache.View()
	src, ok := state.Get[*carav1.Source](v, req.GetName())
	if !ok {
		return nil, rules.NotFound(api.KindSource, req.GetName())
	}
	if src.GetSpec().GetSuspend() {
		src = proto.CloneOf(src)
		src.Spec.Suspend = false
	}
	in := planInput(v, src, s.DB.Now(), req.GetProject())
	p := plan.Diff(in)
	out := &carav1.SourcePlan{
		Source: p.Source, Revision: p.Revision, Settled: int32(p.Settled), PruneBlocked: p.Prune.Reasons,
	}
	for _, step := range append(p.Steps, plan.Unclaimed(in)...) {
		if req.GetProject() == "" || step.Project == req.GetProject() {
			out.Steps = append(out.Steps, planStep(&step))
		}
	}
	if req.GetProject() != "" && len(in.Rows) > 1 {
		out.Settled = 0 // it counted others
	}
	return out, nil
}

// planInput collects every project that a source claims, claimed or owns. The step of a project that the source declares
// depends on that project alone, so the input for it has no others. Whether one is deleted depends on all.
func planInput(v *state.View, src *carav1.Source, now time.Time, only string) plan.Input {
	name := src.GetMetadata().GetName()
	in := plan.Input{Source: src, Now: now}
	if only != "" {
		row := plan.NewRow(planState{v}, name, only)
		if row.Present() && row.Claim.GetSpec().GetHeld() == "" {
			in.Rows = []plan.Row{row}
			return in
		}
	}
	seen := map[string]bool{}
	look := func(project string) {
		if !seen[project] {
			seen[project] = true
			in.Rows = append(in.Rows, plan.NewRow(planState{v}, name, project))
		}
	}
	for _, c := range state.List[*carav1.Claim](v, name+"/") {
		look(strings.TrimPrefix(c.GetMetadata().GetName(), name+"/"))
	}
	for _, project := range v.ProjectsOfOwner(plan.Owner(name)) {
		look(project)
	}
	return in
}

func planStep(s *plan.Step) *carav1.PlanStep {
	out := &carav1.PlanStep{
		Project: s.Project, Action: string(s.Action), Reason: s.Reason, Message: s.Message, Diff: s.Diff, Differs: s.Differs(),
		Owner: s.Row.Project.GetMetadata().GetOwner(),
	}
	if s.Action.Applies() {
		out.ClaimState, out.ClaimMessage = s.Row.Status.GetState(), s.Row.Status.GetMessage()
	}
	return out
}

// planState implements the state that package plan reads, for one view.
type planState struct{ at *state.View }

func (v planState) Source(name string) *carav1.Source {
	s, _ := state.Get[*carav1.Source](v.at, name)
	return s
}

func (v planState) Claims(project string) map[string]*carav1.Claim {
	claims := map[string]*carav1.Claim{}
	for _, name := range v.at.ClaimsOn(project) {
		if c, ok := state.Get[*carav1.Claim](v.at, name); ok {
			source, _, _ := strings.Cut(name, "/")
			claims[source] = c
		}
	}
	return claims
}

func (v planState) Project(name string) (*carav1.Project, string) {
	p, ok := state.Get[*carav1.Project](v.at, name)
	if !ok {
		return nil, ""
	}
	return p, api.ClaimHash(p)
}

func (v planState) Override(project string) *carav1.Override {
	o, _ := state.Get[*carav1.Override](v.at, project)
	return o
}

func (v planState) Tombstone(project string) *carav1.Tombstone {
	t, _ := state.Get[*carav1.Tombstone](v.at, project)
	return t
}
