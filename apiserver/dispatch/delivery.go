package dispatch

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// deliveries brings each change to the sessions whose assignments it concerns, and to no other. So a change costs what its own
// nodes cost, however many are connected. The zero value is ready to use.
//
// Invariant: a session enters before it reads the state that it sends first. What changes after that reaches it, and what has
// changed before is in that state.
//
// The mutex of a feed is locked inside that of deliveries, never the other way round.
type deliveries struct {
	mu        sync.Mutex
	byNode    map[string]*assignmentFeed   // the newest session of each node
	restoring map[*assignmentFeed]struct{} // those that were asked to restore volumes, with values of Secrets
}

// assignmentFeed collects what may have changed for one session since it was last sent.
type assignmentFeed struct {
	feed
	due assignmentsDue // guarded by mu
}

// assignmentsDue are objects to compare with what the agent knows.
type assignmentsDue struct {
	projects, volumes, secrets map[string]struct{} // by name
	all                        bool                // everything that the agent knows or should know
}

func newAssignmentFeed() *assignmentFeed {
	return &assignmentFeed{feed: newFeed(), due: newAssignmentsDue()}
}

func newAssignmentsDue() assignmentsDue {
	return assignmentsDue{projects: map[string]struct{}{}, volumes: map[string]struct{}{}, secrets: map[string]struct{}{}}
}

// take returns what is due, which is not due any more then.
func (f *assignmentFeed) take() assignmentsDue {
	f.mu.Lock()
	defer f.mu.Unlock()
	due := f.due
	f.due = newAssignmentsDue()
	return due
}

// record records something and wakes the session.
func (f *assignmentFeed) record(change func(*assignmentsDue)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.due)
	f.note()
}

func (d *deliveries) enter(node string, f *assignmentFeed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byNode == nil {
		d.byNode, d.restoring = map[string]*assignmentFeed{}, map[*assignmentFeed]struct{}{}
	}
	d.byNode[node] = f
}

// leave removes a session, unless another one has replaced it.
func (d *deliveries) leave(node string, f *assignmentFeed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if delete(d.restoring, f); d.byNode[node] == f {
		delete(d.byNode, node)
	}
}

// restores records that a session was asked to restore a volume.
func (d *deliveries) restores(f *assignmentFeed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.restoring[f] = struct{}{}
}

// all makes every session compare everything, because changes may have been missed.
func (d *deliveries) all() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.byNode {
		f.record(func(due *assignmentsDue) { due.all = true })
	}
}

// deliver tells the sessions about one transaction. now has all of it.
func (d *deliveries) deliver(tx state.Transaction, now *state.View) {
	for i := range tx.Changes {
		if ch := &tx.Changes[i]; unknownBefore(ch) {
			d.all()
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range tx.Changes {
		d.change(&tx.Changes[i], now)
	}
}

// unknownBefore reports whether a change was read from the store's log and it is not known which nodes the object had before.
func unknownBefore(ch *state.Change) bool {
	return ch.Old == nil && !ch.Created && (ch.Kind == api.KindProject || ch.Kind == api.KindVolume)
}

// change tells the sessions about one change. d is locked.
func (d *deliveries) change(ch *state.Change, now *state.View) {
	switch ch.Kind {
	case api.KindProject:
		d.project(ch.Name, nodesOf(ch.Old, ch.New)...)
	case api.KindVolume:
		before, after := state.As[*carav1.Volume](ch.Old), state.As[*carav1.Volume](ch.New)
		for _, node := range []string{before.GetStatus().GetNode(), after.GetStatus().GetNode()} {
			if f := d.byNode[node]; f != nil {
				f.record(func(due *assignmentsDue) { due.volumes[ch.Name] = struct{}{} })
			}
		}
	case api.KindSecret:
		for _, project := range now.ProjectsUsingSecret(ch.Name) {
			d.projectOf(project, now)
		}
		for f := range d.restoring {
			f.record(func(due *assignmentsDue) { due.secrets[ch.Name] = struct{}{} })
		}
	case api.KindNode: // its address may have changed
		for _, project := range now.ProjectsMovingTo(ch.Name) {
			d.projectOf(project, now)
		}
	}
}

// projectOf tells the nodes that have a project now. d is locked.
func (d *deliveries) projectOf(name string, now *state.View) {
	p, _ := state.Get[*carav1.Project](now, name)
	d.project(name, nodesOf(p)...)
}

// project tells nodes that a project may have changed. d is locked.
func (d *deliveries) project(name string, nodes ...string) {
	for _, node := range nodes {
		if f := d.byNode[node]; f != nil {
			f.record(func(due *assignmentsDue) { due.projects[name] = struct{}{} })
		}
	}
}

// nodesOf returns the nodes that a project in some states is assigned to or held by.
func nodesOf(states ...proto.Message) []string {
	var nodes []string
	for _, m := range states {
		st := state.As[*carav1.Project](m).GetStatus()
		nodes = append(nodes, st.GetNodeRef(), st.GetHeldBy())
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// everything returns the names of all projects and volumes that the agent knows or should know, sorted.
func (a *assignments) everything() (projects, volumes []string) {
	now := a.server.DB.Cache.View()
	projects = slices.Concat(slices.Collect(maps.Keys(a.sent)), slices.Collect(maps.Keys(a.asked)),
		now.ProjectsOnNode(a.me.Node), now.ProjectsHeldBy(a.me.Node))
	slices.Sort(projects)
	return slices.Compact(projects), now.VolumesOnNode(a.me.Node)
}

// send sends what is due.
func (a *assignments) send(due assignmentsDue) error {
	projects, volumes := slices.Sorted(maps.Keys(due.projects)), slices.Sorted(maps.Keys(due.volumes))
	if due.all {
		projects, volumes = a.everything()
	}
	for _, name := range projects {
		if err := a.project(name); err != nil {
			return err
		}
	}
	for _, name := range volumes {
		if err := a.volume(name); err != nil {
			return err
		}
	}
	if due.all {
		return a.restoresAgain()
	}
	for name := range due.secrets {
		if err := a.restoresWith(name); err != nil {
			return err
		}
	}
	return nil
}
