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

// followRetry is the wait before changes are followed again after an error.
const followRetry = time.Second

// keepFollowing follows the changes of projects until ctx or the server ends: all makes up for what was missed, before the first change
// and after an error, and each gets every transaction after that. what is for the log.
func keepFollowing(ctx context.Context, db *state.DB, what string, all func(rev int64) error, each func(state.Transaction) error) error {
	nothing := func(int64) error { return nil }
	for db.Cache.Filled(ctx) == nil {
		err := db.Follow(ctx, state.Follower{
			Kinds: []string{api.KindProject}, First: func([]state.Change) error { return nil }, Synced: all, Commit: each, Bookmark: nothing,
		})
		select {
		case <-ctx.Done():
			return nil
		case <-db.Draining:
			return nil
		case <-time.After(followRetry):
			db.Logger.Warn("changes not processed: this is tried again", "for", what, "error", err)
		}
	}
	return nil
}

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
	kept := []keptCondition{d.portsReady(), d.ingressReady()}
	refresh := func(of func(keptCondition) []string) error {
		for _, k := range kept {
			if err := d.refresh(ctx, k, of(k)); err != nil {
				return err
			}
		}
		return nil
	}
	return keepFollowing(ctx, d.DB, "conditions of ports and ingress", func(int64) error {
		return refresh(func(k keptCondition) []string { return projectsWhere(d.DB.Cache, k.concerns) })
	}, func(tx state.Transaction) error {
		return refresh(func(k keptCondition) []string { return k.changed(tx.Changes) })
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
	for _, p := range state.List[*carav1.Project](r, "") {
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

// withCondition sets a condition, or removes the one of its type if c is nil. It reports whether that changes anything.
func withCondition(all []*carav1.Condition, typ string, c *carav1.Condition, now time.Time) ([]*carav1.Condition, bool) {
	if c == nil {
		return api.RemoveCondition(all, typ)
	}
	return api.SetCondition(all, c, now)
}

// with returns the project with the condition that it should have, or p itself if nothing differs.
func (k keptCondition) with(r state.Reader, p *carav1.Project, now time.Time) (*carav1.Project, *carav1.Condition) {
	var c *carav1.Condition
	if k.can(p) && !api.GoingAway(p) {
		c = k.of(r, p)
	}
	if c != nil {
		c.ObservedGeneration = p.GetMetadata().GetGeneration()
	}
	conditions, changed := withCondition(p.GetStatus().GetConditions(), k.kind, c, now)
	if !changed {
		return p, c
	}
	next := proto.CloneOf(p)
	next.Status.Conditions = conditions
	return next, c
}
