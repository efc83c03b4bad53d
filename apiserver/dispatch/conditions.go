package dispatch

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// conditionRetry is the wait before the conditions are computed again after an error.
const conditionRetry = time.Second

// keptCondition is a condition of projects that follows from several objects, such as the reports of nodes. It is computed from
// the cache after each change, so a report and a new project that arrive at the same moment are both considered.
type keptCondition struct {
	kind string
	// can reports whether a project can have the condition, by its spec.
	can func(p *carav1.Project) bool
	// also returns the projects whose condition may differ after a change of another object.
	also func(ch *state.Change) []string
	// of returns the condition of a project, or nil if it has none.
	of func(r state.Reader, p *carav1.Project) *carav1.Condition
	// record records an event for a condition that people may have to act on, and for its end. c can be nil.
	record func(t *state.Tx, p *carav1.Project, c *carav1.Condition)
}

// Conditions writes the conditions of projects that follow from several objects.
type Conditions struct{ DB *state.DB }

// Keep keeps the conditions PortsReady and IngressReady of all projects as their specs, the Secrets and the nodes'
// reports say, until ctx or the server ends.
func (d Conditions) Keep(ctx context.Context) error {
	select {
	case <-d.DB.Cache.Loaded:
	case <-ctx.Done():
		return nil
	}
	kept := []keptCondition{d.portsReady(), d.ingressReady()}
	for {
		err := d.followConditions(ctx, kept)
		select {
		case <-ctx.Done():
			return nil
		case <-d.DB.Draining:
			return nil
		case <-time.After(conditionRetry):
			d.DB.Logger.Warn("conditions of ports and ingress not written", "error", err)
		}
	}
}

func (d Conditions) followConditions(ctx context.Context, kept []keptCondition) error {
	each := func(of func(keptCondition) []string) error {
		for _, k := range kept {
			if err := d.refresh(ctx, k, of(k)); err != nil {
				return err
			}
		}
		return nil
	}
	return d.DB.Follow(ctx, state.Follower{
		Kinds: []string{api.KindProject},
		First: func([]state.Change) error { return nil },
		Synced: func(int64) error {
			return each(func(k keptCondition) []string { return projectsWhere(d.DB.Cache, k.concerns) })
		},
		Commit: func(tx state.Transaction) error {
			return each(func(k keptCondition) []string { return k.changed(tx.Changes) })
		},
		Bookmark: func(int64) error { return nil },
	})
}

// concerns reports whether a project can have the condition, or has it still.
func (k keptCondition) concerns(p *carav1.Project) bool {
	return k.can(p) || api.FindCondition(p.GetStatus().GetConditions(), k.kind) != nil
}

// changed returns the projects whose condition may differ after these changes, sorted.
func (k keptCondition) changed(changes []state.Change) []string {
	var names []string
	for i := range changes {
		if ch := &changes[i]; ch.Kind != api.KindProject {
			names = append(names, k.also(ch)...)
		} else if p, ok := ch.New.(*carav1.Project); ok && k.concerns(p) {
			names = append(names, ch.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// projectsWhere returns the names of the projects that match.
func projectsWhere(r state.Reader, match func(*carav1.Project) bool) (names []string) {
	projects, _ := state.List[*carav1.Project](r, "", "")
	for _, p := range projects {
		if match(p) {
			names = append(names, p.GetMetadata().GetName())
		}
	}
	return names
}

// refresh writes the condition of each project where it differs.
func (d Conditions) refresh(ctx context.Context, k keptCondition, names []string) error {
	for _, name := range names {
		p, ok := state.Get[*carav1.Project](d.DB.Cache, name)
		if !ok {
			continue
		}
		if next, _ := k.with(d.DB.Cache, p, d.DB.Now()); next == p {
			continue
		}
		err := d.DB.Transact(ctx, func(t *state.Tx) error {
			p, ok := state.Read[*carav1.Project](t, name)
			if !ok {
				return nil
			}
			next, c := k.with(t.Seen, p, t.Now)
			if next == p {
				return nil
			}
			k.record(t, p, c)
			t.Put(next)
			return nil
		})
		if err != nil && !api.IsConflict(err) { // after a conflict the change that won is followed by another pass
			return err
		}
	}
	return nil
}

// with returns the project with the condition that it should have, or p itself if nothing differs.
func (k keptCondition) with(r state.Reader, p *carav1.Project, now time.Time) (*carav1.Project, *carav1.Condition) {
	var c *carav1.Condition
	if k.can(p) && !api.GoingAway(p) {
		c = k.of(r, p)
	}
	conditions, changed := p.GetStatus().GetConditions(), false
	if c == nil {
		conditions, changed = api.RemoveCondition(conditions, k.kind)
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
