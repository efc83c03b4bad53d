package dispatch

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// When a project leaves a reachable node, that node holds it until its agent reports that nothing is left. Only then does
// the next node's agent get the project. So no two reachable nodes run one project, however long the first node takes to
// stop it. An unreachable node holds nothing: it stops its containers when it connects again.

// Handover releases projects to their next nodes.
type Handover struct{ DB *state.DB }

// release handles an agent's report that nothing is left of some projects on its node. A report with another epoch is older
// than the node's latest assignment of the project and is ignored.
func (h Handover) release(ctx context.Context, node string, released []*carav1.Released) error {
	for _, r := range released {
		err := h.unhold(ctx, r.GetName(), func(_ *state.Tx, p *carav1.Project) bool {
			return p.GetStatus().GetHeldBy() == node && p.GetMetadata().GetUid() == r.GetUid() && p.GetStatus().GetEpoch() == r.GetEpoch()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ReleaseLost releases the projects that unreachable nodes hold. Call it when the cache shows such a node as NotReady. A
// transaction that still saw the node as Ready when it recorded a hold has committed by then, so ReleaseLost sees the hold.
func (h Handover) ReleaseLost(ctx context.Context) error {
	for _, name := range h.DB.Cache.View().HeldProjects() {
		err := h.unhold(ctx, name, func(t *state.Tx, p *carav1.Project) bool {
			n, ok := state.Read[*carav1.Node](t, p.GetStatus().GetHeldBy())
			return p.GetStatus().GetHeldBy() != "" && (!ok || n.GetStatus().GetState() == api.NodeNotReady)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// releaseEvery is how often a server looks for projects that an unreachable node still holds.
const releaseEvery = 10 * time.Second

// Keep calls ReleaseLost now and then until ctx ends: the call that follows the loss of a node can fail, or be cut off with its
// server, and nothing else would repeat it.
func (h Handover) Keep(ctx context.Context) error {
	if h.DB.Cache.Filled(ctx) != nil {
		return nil // the server ends
	}
	guard.Every(ctx, releaseEvery, func() {
		if err := h.ReleaseLost(ctx); err != nil && ctx.Err() == nil {
			h.DB.Logger.Warn("the projects of lost nodes were not released: this is tried again", "error", err)
		}
	})
	return nil
}

// unhold releases a project to its new node if over reports that the old node is done.
func (h Handover) unhold(ctx context.Context, project string, over func(*state.Tx, *carav1.Project) bool) error {
	return h.DB.Transact(ctx, func(t *state.Tx) error {
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
