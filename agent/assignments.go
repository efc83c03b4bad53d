package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// assignments holds the projects of this node: their desired state as the server last sent it, and whether work is pending.
// It owns the worker's queue. Invariants: an assignment with an older epoch than the one in force is rejected, and a project
// that the server has not named is given up only after the server has named all projects of this node.
type assignments struct {
	node               step.Node
	grace, serverGrace time.Duration // see goBack and releaseHeld
	log                *slog.Logger
	queue              *loop.Queue // of projects to work on
	// nobody receives a value when nothing listens at the server's address.
	nobody    chan struct{}
	listeners listeners

	mu        sync.Mutex
	tasks     map[string]*task
	connected bool      // a stream to our cluster's server is open
	synced    bool      // the server has named all our projects on the current stream
	syncedAt  time.Time // when synced became true
}

func newAssignments(cfg Config, log *slog.Logger) *assignments {
	return &assignments{
		node: cfg.node(), grace: cfg.OrphanGrace, serverGrace: cfg.ServerGrace, log: log, nobody: make(chan struct{}, 1),
		listeners: listeners{projects: map[chan struct{}]string{}}, tasks: map[string]*task{},
	}
}

// assign stores an assignment. It rejects one with an older epoch than the one in force.
func (a *assignments) assign(assignment *carav1.Assignment) {
	want := step.NewWant(a.node, assignment, true)
	log := a.log.With("project", want.Project, "epoch", want.Epoch)
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[want.Project]
	if t != nil && t.want.UID == want.UID && want.Epoch < t.want.Epoch {
		log.Warn("refused an assignment older than the one in force", "in_force", t.want.Epoch)
		t.older = nil
		if !a.synced {
			t.older = assignment
		}
		return
	}
	if t == nil {
		t = &task{}
		a.tasks[want.Project] = t
	}
	want.Remember(t.want)
	t.set(want, assignment.GetProject())
	t.backupProblem = assignment.GetBackupProblem()
	log.Info("assigned", "generation", want.Generation, "phase", want.Phase)
	a.queue.Add(want.Project)
}

// unassign removes a project from this node; its containers will be stopped. Nothing is reported, unless the server gave an
// epoch: another node waits for the project, so the agent reports when nothing is left.
func (a *assignments) unassign(project, uid string, epoch int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[project]
	switch {
	case t == nil:
		t = &task{}
		a.tasks[project] = t
	case uid != "" && t.want.UID != uid && !t.want.Quiet:
		return // replaced by a project of the same name; Step removes what is left of the old one
	}
	if t.want == nil || !t.want.Quiet {
		a.log.Info("unassigned", "project", project)
	}
	t.set(step.Unwanted(a.node, project, uid, epoch), nil)
	a.queue.Add(project)
}

// sync ends the server's first list: a project that it did not name is not ours.
func (a *assignments) sync(named map[string]bool) {
	a.mu.Lock()
	var lost []*step.Want
	for name, t := range a.tasks {
		if !named[name] {
			lost = append(lost, t.want)
		}
	}
	a.synced, a.syncedAt = true, time.Now()
	a.mu.Unlock()
	for _, w := range lost {
		if !w.Quiet { // otherwise already unassigned, perhaps with an epoch
			a.unassign(w.Project, w.UID, 0)
		}
	}
}

// link records whether a stream to the server is open.
func (a *assignments) link(connected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected, a.synced = connected, false
	for _, t := range a.tasks {
		t.older = nil
	}
}

// obeyed lists the newest assignment of each project of which this node has something, also of those that it still removes.
func (a *assignments) obeyed() *carav1.Obeyed {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &carav1.Obeyed{}
	for _, name := range slices.Sorted(maps.Keys(a.tasks)) {
		if w := a.tasks[name].want; w.UID != "" {
			out.Projects = append(out.Projects, &carav1.ObeyedProject{Name: name, Uid: w.UID, Epoch: w.Epoch})
		}
	}
	return out
}

// unowned returns the given projects that this node does not have. synced is false until the server has named all our
// projects.
func (a *assignments) unowned(seen map[string]string) (projects map[string]bool, synced bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	projects = map[string]bool{}
	for project := range seen {
		if a.tasks[project] == nil {
			projects[project] = true
		}
	}
	return projects, a.synced
}

// wanted returns the desired state of a project, or nil if this node does not have it.
func (a *assignments) wanted(project string) *step.Want {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[project]; t != nil {
		return t.want
	}
	return nil
}

// mayUse reports whether a project of this node uses the data of a Managed volume, or may do so: the server has not named all
// our projects.
func (a *assignments) mayUse(uid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tasks {
		if t.want.Holds(uid) {
			return true
		}
	}
	return !a.synced
}

// images returns the images of all projects of this node, running or not.
func (a *assignments) images() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, t := range a.tasks {
		for _, svc := range t.want.Spec.GetServices() {
			out = append(out, svc.GetImage(), t.want.ImageOf(svc))
		}
	}
	return out
}

// blobs returns the files of sources that the projects of this node use.
func (a *assignments) blobs() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	used := map[string]bool{}
	for _, t := range a.tasks {
		for _, digest := range api.Blobs(t.want.Spec) {
			used[digest] = true
		}
	}
	return used
}

// goBack accepts assignments with an older epoch than the one in force. Only a server that was restored from a backup keeps
// sending these: in its first list on a new stream, and without a newer one for the whole grace. goBack returns when to look
// again (0 for never), and a message for an event (empty for none).
func (a *assignments) goBack(now time.Time) (time.Duration, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var back []string
	for _, project := range slices.Sorted(maps.Keys(a.tasks)) {
		t := a.tasks[project]
		if t.older == nil || !a.synced {
			continue
		}
		if left := a.grace - now.Sub(a.syncedAt); left > 0 {
			return left, ""
		}
		want := step.NewWant(a.node, t.older, true)
		a.log.Warn("the server has gone back to an older assignment", "project", project, "epoch", want.Epoch, "in_force", t.want.Epoch)
		back = append(back, fmt.Sprintf("%s from epoch %d to %d", project, t.want.Epoch, want.Epoch))
		t.set(want, t.older.GetProject())
		a.queue.Add(project)
	}
	if len(back) == 0 {
		return 0, ""
	}
	return 0, "the server was restored from an older state; its word is taken on " + strings.Join(back, ", ")
}

// census counts the projects by phase. Projects that are no longer ours and wait for their removal count as "Unassigned".
func (a *assignments) census() (phases map[string]int, synced bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	phases = map[string]int{}
	for _, t := range a.tasks {
		phases[cmp.Or(t.want.Phase, "Unassigned")]++
	}
	return phases, a.synced
}

// load reads the assignments of the last run. They are held until the server confirms them or releaseHeld releases them.
func (a *assignments) load(d *disk) error {
	kept, err := d.load()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range kept {
		want := step.NewWant(a.node, k, false)
		record := d.loadRecord(want.Project)
		a.tasks[want.Project] = &task{
			want: want, project: k.GetProject(), held: true, work: workspace{saved: k, record: record, noted: record},
		}
	}
	return nil
}

// releaseHeld releases the assignments from disk once the server has been unreachable for the grace. Before that they may be
// outdated, and a project that has moved must not start here. If nothing listens at the server's address, there is no reason
// to wait.
func (a *assignments) releaseHeld(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.serverGrace):
		case <-a.nobody:
		}
		a.mu.Lock()
		naming := a.connected && !a.synced // it is about to send the list
		a.mu.Unlock()
		if !naming {
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	released := 0
	for name, t := range a.tasks {
		if t.held {
			t.held = false
			released++
			a.queue.Add(name)
		}
	}
	if released > 0 {
		a.log.Warn("the server is away: keeping up what was assigned last", "projects", released)
	}
	return nil
}

// listeners are notified when something may have happened to a project.
type listeners struct {
	mu       sync.Mutex
	projects map[chan struct{}]string
}

// listen returns a channel that receives a value when something may have happened to a project, until stop is called.
func (l *listeners) listen(project string) (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.projects[c] = project
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.projects, c)
	}
}

func (l *listeners) wake(project string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, name := range l.projects {
		if name == project {
			kick(c)
		}
	}
}

// kick sends a value without blocking to a channel of capacity 1.
func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
