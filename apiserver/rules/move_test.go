package rules

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestAfterReport(t *testing.T) {
	for _, test := range []struct {
		name, step, result string
		attempts           int32
		to                 targetState
		want               moveEffect
	}{
		{"not accepted yet", api.MoveRequested, api.MoveCopied, 0, targetReady, moveUnchanged},
		{"verified before it was accepted", api.MoveRequested, api.MoveVerified, 0, targetReady, moveUnchanged},
		{"failed before it was accepted", api.MoveRequested, api.MoveFailed, 0, targetReady, moveUnchanged},
		{"copied", api.MoveCopying, api.MoveCopied, 0, targetReady, moveSwitches},
		{"copied, and no inventory since the server's start", api.MoveCopying, api.MoveCopied, 0, targetUnknown, moveUnchanged},
		{"copied, and the new node is away", api.MoveCopying, api.MoveCopied, 0, targetAway, moveUnchanged},
		{"copied, and the new node is draining", api.MoveCopying, api.MoveCopied, 0, targetDraining, moveFails},
		{"copied, and the new node is gone", api.MoveCopying, api.MoveCopied, 0, targetGone, moveFails},
		{"verified while the project runs", api.MoveCopying, api.MoveVerified, 0, targetReady, moveUnchanged},
		{"interrupted twice", api.MoveCopying, api.MoveInterrupted, 1, targetReady, moveUnchanged},
		{"the copy cannot succeed", api.MoveCopying, api.MoveFailed, 0, targetReady, moveFails},
		{"copied again", api.MoveSwitching, api.MoveCopied, 0, targetReady, moveUnchanged},
		{"verified", api.MoveSwitching, api.MoveVerified, 0, targetReady, moveCompletes},
		{"verified in the last attempt", api.MoveSwitching, api.MoveVerified, 2, targetReady, moveCompletes},
		{"verified, and the new node is draining", api.MoveSwitching, api.MoveVerified, 0, targetDraining, moveCompletes},
		{"verified, and no inventory since the server's start", api.MoveSwitching, api.MoveVerified, 0, targetUnknown, moveUnchanged},
		{"verified, and the new node is away", api.MoveSwitching, api.MoveVerified, 0, targetAway, moveRepeats},
		{"verified, and the new node is away for the third time", api.MoveSwitching, api.MoveVerified, 2, targetAway, moveFails},
		{"verified, and the new node is gone", api.MoveSwitching, api.MoveVerified, 0, targetGone, moveFails},
		{"interrupted", api.MoveSwitching, api.MoveInterrupted, 0, targetReady, moveRepeats},
		{"interrupted for the second time", api.MoveSwitching, api.MoveInterrupted, 1, targetReady, moveRepeats},
		{"interrupted for the third time", api.MoveSwitching, api.MoveInterrupted, 2, targetReady, moveFails},
		{"the switch cannot succeed", api.MoveSwitching, api.MoveFailed, 0, targetReady, moveFails},
		{"an unknown result", api.MoveSwitching, "Done", 0, targetReady, moveUnchanged},
	} {
		m := &carav1.Move{Id: "m1", Step: test.step, Attempts: test.attempts}
		if got := afterReport(m, &carav1.MoveReport{Id: "m1", Result: test.result}, test.to); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
		if got := afterReport(m, &carav1.MoveReport{Id: "m0", Result: test.result}, test.to); got != moveUnchanged {
			t.Errorf("%s, of another move: %d, want %d", test.name, got, moveUnchanged)
		}
		if got := afterReport(m, nil, test.to); got != moveUnchanged {
			t.Errorf("%s, without a report: %d, want %d", test.name, got, moveUnchanged)
		}
	}
}

// movable is a project on n1 with data there, and the nodes n1 and n2 between which it can move.
func movable() (p *carav1.Project, from, to *carav1.Node) {
	node := func(name string) *carav1.Node {
		return &carav1.Node{
			Metadata: &carav1.ObjectMeta{Name: name}, Spec: &carav1.NodeSpec{},
			Status: &carav1.NodeStatus{State: api.NodeReady, Info: &carav1.NodeInfo{IngressAddress: "192.0.2.1:8081", Tools: map[string]string{api.ToolRsync: "3.2.7"}}},
		}
	}
	p = &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "shop"},
		Status: &carav1.ProjectStatus{
			Phase: api.PhaseRunning, NodeRef: "n1",
			Volumes: []*carav1.VolumeUse{{Name: "db", Uid: "u1", Node: "n1", Made: true}},
		},
	}
	return p, node("n1"), node("n2")
}

func TestCannotMove(t *testing.T) {
	refused := &carav1.Condition{Type: api.CondIngressReachable, Status: api.StatusFalse}
	for _, test := range []struct {
		name   string
		change func(p *carav1.Project, from, to *carav1.Node)
		want   string
	}{
		{"with data", func(*carav1.Project, *carav1.Node, *carav1.Node) {}, ""},
		{"scheduled", func(p *carav1.Project, _, _ *carav1.Node) { p.Status.Phase = api.PhaseScheduled }, ""},
		{"without data nothing is copied", func(p *carav1.Project, from, to *carav1.Node) {
			p.Status.Volumes, from.Status, to.Status.Info = nil, nil, nil
		}, ""},
		{"pending without data", func(p *carav1.Project, _, _ *carav1.Node) {
			p.Status.Phase, p.Status.NodeRef, p.Status.Volumes = api.PhasePending, "", nil
		}, ""},
		{"terminating", func(p *carav1.Project, _, _ *carav1.Node) { p.Status.Phase = api.PhaseTerminating }, "is being deleted"},
		{"to its own node", func(p *carav1.Project, _, _ *carav1.Node) { p.Status.NodeRef = "n2" }, "is on node n2 already"},
		{"failed", func(p *carav1.Project, _, _ *carav1.Node) { p.Status.Phase = api.PhaseFailed }, "caractrl retry shop"},
		{"with a failed update", func(p *carav1.Project, _, _ *carav1.Node) {
			p.Status.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonUpdateFailed}}
		}, "caractrl rollback shop"},
		{"to a lost node", func(_ *carav1.Project, _, to *carav1.Node) { to.Status.State = api.NodeNotReady }, "node n2 is NotReady"},
		{"to a draining node", func(_ *carav1.Project, _, to *carav1.Node) { to.Spec.Draining = true }, "caractrl uncordon n2"},
		{"to a cordoned node", func(_ *carav1.Project, _, to *carav1.Node) { to.Spec.Unschedulable = true }, "caractrl uncordon n2"},
		{"from a lost node", func(_ *carav1.Project, from, _ *carav1.Node) { from.Status.State = api.NodeNotReady }, "node n1 is NotReady"},
		{"with data on two nodes", func(p *carav1.Project, _, _ *carav1.Node) {
			p.Status.Volumes = append(p.Status.Volumes, &carav1.VolumeUse{Name: "files", Node: "n3", Made: true})
		}, "on the nodes n1 and n3"},
		{"with data on a third node", func(p *carav1.Project, _, _ *carav1.Node) { p.Status.Volumes[0].Node = "n3" }, "its data is on node n3"},
		{"pending with data", func(p *carav1.Project, _, _ *carav1.Node) { p.Status.Phase, p.Status.NodeRef = api.PhasePending, "" }, "has no node"},
		{"with a volume that is not created", func(p *carav1.Project, _, _ *carav1.Node) {
			p.Status.Volumes = append(p.Status.Volumes, &carav1.VolumeUse{Name: "files", Node: "n1"})
		}, "has not created volume shop.files"},
		{"without rsync on the old node", func(_ *carav1.Project, from, _ *carav1.Node) { from.Status.Info.Tools = nil }, "node n1 has no rsync"},
		{"without rsync on the new node", func(_ *carav1.Project, _, to *carav1.Node) { to.Status.Info.Tools = nil }, "node n2 has no rsync"},
		{"without an address", func(_ *carav1.Project, _, to *carav1.Node) { to.Status.Info.IngressAddress = "" }, "--ingress-address"},
		{"with an address that is not sent", func(_ *carav1.Project, _, to *carav1.Node) { to.Status.Conditions = []*carav1.Condition{refused} }, "--ingress-address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, from, to := movable()
			test.change(p, from, to)
			err := cannotMove(p, "n2", from, to)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	p, from, to := movable()
	if err := cannotMove(p, "n2", from, nil); !api.IsNotFound(err) {
		t.Errorf("to a node that does not exist: %v", err)
	}
	if err := cannotMove(p, "n2", nil, to); err == nil {
		t.Error("data of a node that does not exist was moved")
	}
}

func TestCopiesAll(t *testing.T) {
	p, _, _ := movable()
	for name, test := range map[string]struct {
		copied []*carav1.MovedVolume
		want   bool
	}{
		"the same":  {[]*carav1.MovedVolume{{Name: "db", Uid: "u1"}}, true},
		"too few":   {nil, false},
		"too many":  {[]*carav1.MovedVolume{{Name: "db", Uid: "u1"}, {Name: "files", Uid: "u2"}}, false},
		"other uid": {[]*carav1.MovedVolume{{Name: "db", Uid: "u0"}}, false},
	} {
		if got := copiesAll(p, &carav1.Move{Volumes: test.copied}); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}
