package dispatch

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// portRetry is the wait before the conditions are computed again after an error.
const portRetry = time.Second

// KeepPortConditions keeps the condition PortsReady of all projects as their specs and the nodes' reports say, until ctx or the
// server ends. The condition is computed from the cache after each change, so a report and a new project that arrive
// at the same moment are both considered.
func (d *Dispatcher) KeepPortConditions(ctx context.Context) error {
	select {
	case <-d.DB.Cache.Loaded:
	case <-ctx.Done():
		return nil
	}
	for {
		err := d.followPorts(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-d.DB.Draining:
			return nil
		case <-time.After(portRetry):
			d.DB.Logger.Warn("conditions of ports not written", "error", err)
		}
	}
}

func (d *Dispatcher) followPorts(ctx context.Context) error {
	return d.DB.Follow(ctx, state.Follower{
		Kinds: []string{api.KindProject},
		First: func([]state.Change) error { return nil },
		Synced: func(int64) error {
			return d.refreshPorts(ctx, d.projectsWithPorts())
		},
		Commit: func(tx state.Transaction) error {
			return d.refreshPorts(ctx, d.portChanges(tx.Changes))
		},
		Bookmark: func(int64) error { return nil },
	})
}

// portChanges returns the projects whose condition may differ after these changes.
func (d *Dispatcher) portChanges(changes []state.Change) []string {
	changed := map[string]bool{}
	for i := range changes {
		switch ch := &changes[i]; ch.Kind {
		case api.KindProject:
			if p, ok := ch.New.(*carav1.Project); ok && (len(p.GetSpec().GetPorts()) > 0 || api.FindCondition(p.GetStatus().GetConditions(), api.CondPortsReady) != nil) {
				changed[ch.Name] = true
			}
		case api.KindNode:
			if samePorts(ch.Old, ch.New) {
				continue
			}
			for _, name := range d.projectsWithPorts() {
				changed[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(changed))
}

// samePorts reports whether a change of a node does not matter to ports.
func samePorts(before, after proto.Message) bool {
	part := func(m proto.Message) *carav1.NodeStatus {
		n, ok := m.(*carav1.Node)
		if !ok {
			return &carav1.NodeStatus{}
		}
		st := n.GetStatus()
		return &carav1.NodeStatus{State: st.GetState(), Ports: st.GetPorts(), Info: &carav1.NodeInfo{PortOffer: st.GetInfo().GetPortOffer()}}
	}
	return proto.Equal(part(before), part(after))
}

func (d *Dispatcher) projectsWithPorts() []string {
	claims, _ := state.List[*carav1.PortClaim](d.DB.Cache, "", "")
	names := make([]string, 0, len(claims))
	for _, c := range claims {
		names = append(names, c.GetProject())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// refreshPorts writes the condition of each project where it differs.
func (d *Dispatcher) refreshPorts(ctx context.Context, names []string) error {
	for _, name := range names {
		p, ok := state.Get[*carav1.Project](d.DB.Cache, name)
		if !ok {
			continue
		}
		if next, _ := withPortsCondition(d.DB.Cache, p, d.DB.Now()); next == p {
			continue
		}
		err := d.DB.Transact(ctx, func(t *state.Tx) error {
			p, ok := state.Read[*carav1.Project](t, name)
			if !ok {
				return nil
			}
			next, c := withPortsCondition(t.Seen, p, t.Now)
			if next == p {
				return nil
			}
			recordPorts(t, p, c)
			t.Put(next)
			return nil
		})
		if err != nil && !api.IsConflict(err) { // after a conflict the change that won is followed by another pass
			return err
		}
	}
	return nil
}

// withPortsCondition returns the project with the condition that it should have, or p itself if nothing differs.
func withPortsCondition(r state.Reader, p *carav1.Project, now time.Time) (*carav1.Project, *carav1.Condition) {
	var c *carav1.Condition
	if !api.GoingAway(p) {
		nodes, _ := state.List[*carav1.Node](r, "", "")
		c = api.PortsCondition(p, nodes)
	}
	conditions, changed := p.GetStatus().GetConditions(), false
	if c == nil {
		conditions, changed = api.RemoveCondition(conditions, api.CondPortsReady)
	} else {
		c.ObservedGeneration = p.GetMetadata().GetGeneration()
		conditions, changed = api.SetCondition(conditions, c, now)
	}
	if !changed {
		return p, c
	}
	next := proto.CloneOf(p)
	next.Status.Conditions = conditions
	return next, c
}

// recordPorts records an event for a condition that people may have to act on, and for its end.
func recordPorts(t *state.Tx, p *carav1.Project, c *carav1.Condition) {
	had := api.FindCondition(p.GetStatus().GetConditions(), api.CondPortsReady)
	switch reason := c.GetReason(); {
	case c == nil, reason == had.GetReason() && c.GetMessage() == had.GetMessage():
	case reason == api.ReasonPortNotOffered:
		rules.RecordEvent(t, rules.RefTo(p), api.EventWarning, api.ReasonPortNotOffered, c.GetMessage())
	case reason == api.ReasonPortNotOpen:
		rules.RecordEvent(t, rules.RefTo(p), api.EventWarning, api.ReasonPortNotOpen, c.GetMessage())
	case c.GetStatus() == api.StatusTrue && had.GetStatus() != api.StatusTrue:
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonPortsOpen, c.GetMessage())
	}
}
