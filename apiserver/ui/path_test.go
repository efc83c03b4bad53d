package ui

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The picture names the first place where a project is stuck or waits, and says why.
func TestPathOf(t *testing.T) {
	running := func() *carav1.Project {
		return &carav1.Project{
			Metadata: &carav1.ObjectMeta{Name: "shop", Generation: 2, Owner: "source/platform"}, Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "app"}}},
			Status: &carav1.ProjectStatus{Phase: api.PhaseRunning, NodeRef: "n1", ObservedGeneration: 2, Services: []*carav1.ServiceStatus{{Name: "app", State: api.ServiceRunning}}},
		}
	}
	declared := func() origin {
		return origin{
			Source: &carav1.Source{Metadata: &carav1.ObjectMeta{Name: "platform"}, Spec: &carav1.SourceSpec{}, Status: &carav1.SourceStatus{Snapshot: &carav1.Snapshot{Revision: "9a0b1c2d3e4f5678", Subject: "Shop: two"}}},
			Claim:  &carav1.Claim{Spec: &carav1.ClaimSpec{File: "shop.yaml", Line: 3, Present: true}, Status: &carav1.ClaimStatus{State: api.ClaimApplied}},
			Plan:   &carav1.SourcePlan{Settled: 1},
		}
	}
	condition := func(typ, status, reason, message string) []*carav1.Condition {
		return []*carav1.Condition{{Type: typ, Status: status, Reason: reason, Message: message}}
	}
	for name, tt := range map[string]struct {
		change func(p *carav1.Project, o *origin, n *carav1.Node)
		want   string // name, state and a part of the reason of the first stop that is not good
	}{
		"well":      {change: func(*carav1.Project, *origin, *carav1.Node) {}},
		"of nobody": {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) { *o = origin{} }},
		"fetch": {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) {
			o.Source.Status.Conditions = condition(api.CondFetchFailed, api.StatusTrue, "X", "no route to host")
		}, want: "Commit|stuck here|no route to host"},
		"suspended": {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) { o.Source.Spec.Suspend = true }, want: "Commit|waits here|is suspended"},
		"held":      {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) { o.Claim.Spec.Held = "shop.yaml has an error" }, want: "Claim|stuck here|shop.yaml has an error"},
		"overridden": {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) {
			o.Step = &carav1.PlanStep{Action: api.PlanKeep, Reason: api.ClaimOverridden, Message: "overridden by user/ada until 12:00: x"}
		}, want: "Claim|overridden|a person overrides git"},
		"left":   {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) { o.Claim.Spec.Present = false }, want: "Claim|waits here|no manifest"},
		"update": {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) { o.Step = &carav1.PlanStep{Action: api.PlanUpdate} }, want: "Claim|waits here|would be configured"},
		"refused": {change: func(_ *carav1.Project, o *origin, _ *carav1.Node) {
			o.Claim.Status.State = api.ClaimRefused
			o.Step = &carav1.PlanStep{Action: api.PlanUpdate, ClaimState: api.ClaimRefused, ClaimMessage: "the host is taken"}
		}, want: "Claim|stuck here|the host is taken"},
		"rollout": {change: func(p *carav1.Project, _ *origin, _ *carav1.Node) { p.Metadata.Generation = 3 }, want: "Project|waits here|generation 3"},
		"deleted": {change: func(p *carav1.Project, _ *origin, _ *carav1.Node) { p.Status.Phase = api.PhaseTerminating }, want: "Project|being deleted|"},
		"no node": {change: func(p *carav1.Project, _ *origin, _ *carav1.Node) {
			p.Status = &carav1.ProjectStatus{Phase: api.PhasePending, Conditions: condition(api.CondScheduled, api.StatusFalse, "NoNodeFits", "0 of 3 nodes fit")}
		}, want: "Node|stuck here|0 of 3 nodes fit"},
		"lost node": {change: func(_ *carav1.Project, _ *origin, n *carav1.Node) { n.Status.State = api.NodeNotReady }, want: "Node|stuck here|not connected"},
		"crash": {change: func(p *carav1.Project, _ *origin, _ *carav1.Node) {
			p.Status.Phase, p.Status.Conditions = api.PhaseFailed, condition(api.CondPhase, api.StatusTrue, "CrashLoop", "exit code 1")
		}, want: "Containers|stuck here|exit code 1"},
		"pulling": {change: func(p *carav1.Project, _ *origin, _ *carav1.Node) {
			p.Status.Phase, p.Status.Services, p.Status.Conditions = api.PhaseScheduled, nil, condition(api.CondImagesReady, api.StatusFalse, "Pulling", "pulling app: 40 %")
		}, want: "Containers|waits here|40 %"},
	} {
		t.Run(name, func(t *testing.T) {
			p, o, n := running(), declared(), &carav1.Node{Status: &carav1.NodeStatus{State: api.NodeReady}}
			tt.change(p, &o, n)
			stops, got := pathOf(p, o, n), ""
			for _, s := range stops {
				if s.Stuck {
					got = s.Name + "|" + s.State + "|" + s.Why
				}
			}
			head, why := tt.want, ""
			if i := strings.LastIndex(tt.want, "|"); i >= 0 {
				head, why = tt.want[:i+1], tt.want[i+1:]
			}
			if !strings.HasPrefix(got, head) || !strings.Contains(got, why) || tt.want == "" && got != "" {
				t.Errorf("stuck at %q, want %q", got, tt.want)
			}
			if want := 5; o.Source != nil && len(stops) != want {
				t.Errorf("%d stops, want %d", len(stops), want)
			}
		})
	}
}
