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
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// assignments are the projects of this node: what each should be, as the server said last, and whether there is anything to do about it. It owns the
// queue of the worker. What holds: an assignment with an older epoch than the one in force is refused, and what the server has not named is
// given up only once the server has named all that is ours.
type assignments struct {
	node               step.Node
	grace, serverGrace time.Duration // see goBack and releaseHeld
	log                *slog.Logger
	queue              *loop.Queue // of projects to work on
	// nobody gets a value when nobody listens at the server's address.
	nobody    chan struct{}
	listeners listeners

	mu        sync.Mutex
	tasks     map[string]*task
	connected bool      // a stream to our cluster's server is open
	synced    bool      // the server has named all that is ours on the stream that is open
	syncedAt  time.Time // when it had
}

func newAssignments(cfg Config, log *slog.Logger) *assignments {
	return &assignments{
		node: cfg.node(), grace: cfg.OrphanGrace, serverGrace: cfg.ServerGrace, log: log, nobody: make(chan struct{}, 1),
		listeners: listeners{projects: map[chan struct{}]string{}}, tasks: map[string]*task{},
	}
}

// assign takes an assignment in. One with an older epoch than the one in force is refused.
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
	log.Info("assigned", "generation", want.Generation, "phase", want.Phase)
	a.queue.Add(want.Project)
}

// unassign makes a project none of ours: what runs of it is stopped. Nothing is said of it, unless the server gave an epoch:
// then that nothing is left, since another node waits for it.
func (a *assignments) unassign(project, uid string, epoch int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[project]
	switch {
	case t == nil:
		t = &task{}
		a.tasks[project] = t
	case uid != "" && t.want.UID != uid && !t.want.Quiet:
		return // a namesake took its place; Step removes what is left of the old one
	}
	if t.want == nil || !t.want.Quiet {
		a.log.Info("unassigned", "project", project)
	}
	t.set(step.Unwanted(a.node, project, uid, epoch), nil)
	a.queue.Add(project)
}

// sync ends the server's first list: what it did not name is not ours.
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
		if !w.Quiet { // else it was, and perhaps with an epoch
			a.unassign(w.Project, w.UID, 0)
		}
	}
}

// link takes in that the stream to the server is open now, or not any more.
func (a *assignments) link(connected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected, a.synced = connected, false
	for _, t := range a.tasks {
		t.older = nil
	}
}

// unowned are those of these projects that this node does not have. synced is false while the server has not named all that is ours.
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

// wanted is what a project should be on this node; nil where it is none of ours.
func (a *assignments) wanted(project string) *step.Want {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[project]; t != nil {
		return t.want
	}
	return nil
}

// images are those that projects of this node name, whether they run or not.
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

// goBack takes the server's word on projects that it names with an epoch below the one in force here. Only one that was
// restored from a backup says such a thing for long: it says so in its first list on a new stream, and goes on saying
// so for the whole grace. It returns when to look again, 0 for no need, and what to tell, empty for nothing.
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

// census counts the projects by phase. Those that are not ours, and only await their removal, have none: "Unassigned".
func (a *assignments) census() (phases map[string]int, synced bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	phases = map[string]int{}
	for _, t := range a.tasks {
		phases[cmp.Or(t.want.Phase, "Unassigned")]++
	}
	return phases, a.synced
}

// load takes in the assignments of the last run. They wait for the server, for a while (releaseHeld).
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

// releaseHeld acts on the assignments on disk once the server has been away for the grace: before, they may be of
// yesterday, and a project that has moved must not start here. Where nobody listens at the server's address there is
// nothing to wait for.
func (a *assignments) releaseHeld(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.serverGrace):
		case <-a.nobody:
		}
		a.mu.Lock()
		naming := a.connected && !a.synced // it is about to say what is ours
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

// listeners are told when something may have happened to a project.
type listeners struct {
	mu       sync.Mutex
	projects map[chan struct{}]string
}

// listen returns a channel that gets a value when something may have happened to a project, until stop is called.
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

// kick puts a value into a channel with room for one, unless there is one already.
func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
