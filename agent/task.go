package agent

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// task is one project at this node.
type task struct {
	// want is what it should be; guarded by assignments.mu. The worker reads it anew at each pass.
	want *step.Want
	// project is what want was made from, to be kept on disk; nil with a quiet want.
	project *carav1.Project
	// held: read from disk and not yet confirmed; guarded by assignments.mu.
	held bool
	// older is what the server named with an epoch below the one in force, on the stream that is open; guarded by assignments.mu.
	older *carav1.Assignment
	// hinted: something happened since the last look began; guarded by assignments.mu.
	hinted bool
	// settled is the want for which the last look found nothing to do, until due (zero: until something happens); nil
	// where that is not known. Guarded by assignments.mu.
	settled *step.Want
	due     time.Time
	// Only the worker of the project uses these.
	work workspace
}

// set makes want what the project should be. What the server said of it before counts no longer.
func (t *task) set(want *step.Want, project *carav1.Project) {
	t.want, t.project, t.held, t.older = want, project, false, nil
}

// hint says that something may have happened to a project.
func (a *assignments) hint(project string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners.wake(project)
	if t := a.tasks[project]; t != nil {
		t.hinted = true
		a.queue.Add(project)
	}
}

// hintAll says that something may have happened to every project.
func (a *assignments) hintAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for project, t := range a.tasks {
		t.hinted = true
		a.queue.Add(project)
	}
}

// current returns the project's task and what it should be now; nil where there is nothing to do yet. look is false
// where nothing happened since the last look found all as wanted: what a look covers, it covers once, and the events
// of what the agent itself did are old by the time of the next. Where look is false, again is when to look: the queue keeps
// only the earliest of a key's times, and one that came before it was due must not be the last.
func (a *assignments) current(project string, now time.Time) (t *task, want *step.Want, look bool, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t = a.tasks[project]
	if t == nil || t.held {
		return nil, nil, false, 0
	}
	look = t.hinted || t.settled != t.want || !t.due.IsZero() && !now.Before(t.due)
	if look {
		t.hinted, t.settled = false, nil
	} else if !t.due.IsZero() {
		again = max(t.due.Sub(now), time.Millisecond)
	}
	return t, t.want, look, again
}

// settle remembers that a look found nothing to do.
func (a *assignments) settle(t *task, want *step.Want, now time.Time, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.settled, t.due = want, time.Time{}
	if again > 0 {
		t.due = now.Add(again)
	}
}

// replace puts next in the place of want, unless the project was assigned anew meanwhile.
func (a *assignments) replace(t *task, want, next *step.Want) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.want == want {
		t.want = next
	}
}

// project is what a task's want was made from.
func (a *assignments) project(t *task) *carav1.Project {
	a.mu.Lock()
	defer a.mu.Unlock()
	return t.project
}

// drop forgets a project of which nothing is left, unless it was assigned anew meanwhile.
func (a *assignments) drop(project string, want *step.Want) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[project]; t != nil && t.want == want {
		delete(a.tasks, project)
	}
}

// reported takes in that the server knows a phase now.
func (a *assignments) reported(project string, r *carav1.UpdateProjectStatusRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[project]
	if t == nil || r.GetPhase() == "" || t.want.UID != r.GetUid() || t.want.Epoch != r.GetEpoch() || t.want.Generation != r.GetObservedGeneration() {
		return
	}
	if t.want.Phase == api.PhaseTerminating && r.GetPhase() != api.PhaseTerminated {
		return
	}
	next := *t.want
	next.Phase = r.GetPhase()
	if t.settled == t.want {
		t.settled = &next // what was found then holds: it is what was reported
	}
	t.want = &next
	if t.project != nil {
		p := proto.CloneOf(t.project)
		p.Status.Phase, p.Status.ObservedGeneration = r.GetPhase(), r.GetObservedGeneration()
		if r.GetPhase() == api.PhaseRunning {
			p.Status.Services, p.Status.MovedFrom = r.GetServices(), ""
			next.PinAnew(p.GetStatus())
		}
		for _, c := range r.GetConditions() {
			p.Status.Conditions, _ = api.SetCondition(p.GetStatus().GetConditions(), c, time.Now())
		}
		t.project = p
	}
	a.listeners.wake(project)
	a.queue.Add(project) // to have it on disk: a project that failed must not start anew with the next agent
}
