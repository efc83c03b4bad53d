package dispatch

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A project that leaves a node which is there is held by it until its agent says that nothing is left: only then is the
// next node's agent told of the project. So no two nodes that can be reached run one project, however long the first
// takes to stop it. A node that is not heard of holds nothing: what it runs is stopped when it comes back.

// release takes an agent's word that nothing is left of some projects on its node. What it says of another epoch is from
// before the project was there once more.
func (d *Dispatcher) release(ctx context.Context, node string, released []*carav1.Released) error {
	for _, r := range released {
		err := d.unhold(ctx, r.GetName(), func(_ *state.Tx, p *carav1.Project) bool {
			return p.GetStatus().GetHeldBy() == node && p.GetMetadata().GetUid() == r.GetUid() && p.GetStatus().GetEpoch() == r.GetEpoch()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ReleaseLost lets go of what is held by nodes that are not heard of. It is called once such a node is known to the
// cache: whoever saw it otherwise when he noted the hold has committed before, and is seen here.
func (d *Dispatcher) ReleaseLost(ctx context.Context) error {
	for _, p := range held(d.DB.Cache) {
		err := d.unhold(ctx, p.GetMetadata().GetName(), func(t *state.Tx, p *carav1.Project) bool {
			n, ok := state.Read[*carav1.Node](t, p.GetStatus().GetHeldBy())
			return p.GetStatus().GetHeldBy() != "" && (!ok || n.GetStatus().GetState() == api.NodeNotReady)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unhold lets a project's new node have it, if over says that the old one is done.
func (d *Dispatcher) unhold(ctx context.Context, project string, over func(*state.Tx, *carav1.Project) bool) error {
	return d.DB.Transact(ctx, func(t *state.Tx) error {
		p, ok := state.Read[*carav1.Project](t, project)
		if !ok || !over(t, p) {
			return nil
		}
		p = proto.CloneOf(p)
		p.Status.HeldBy = ""
		t.Put(p)
		return nil
	})
}

// held are the projects that some node holds. They are asked for when a node goes, which is seldom: there is no index.
func held(r state.Reader) []*carav1.Project {
	all, _ := state.List[*carav1.Project](r, "", "")
	return slices.DeleteFunc(all, func(p *carav1.Project) bool { return p.GetStatus().GetHeldBy() == "" })
}
