package agent

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// task is one project on this node.
type task struct {
	// want is the desired state; guarded by assignments.mu. The worker reads it again at each pass.
	want *step.Want
	// project is what want was made from, for the disk. Nil if want is quiet.
	project *carav1.Project
	// held is true if it was read from disk and is not confirmed yet; guarded by assignments.mu.
	held bool
	// older is the assignment with an older epoch that the server sent on the current stream; guarded by assignments.mu.
	older *carav1.Assignment
	// hinted is true if something happened since the last look began; guarded by assignments.mu.
	hinted bool
	// settled is the want for which the last look found nothing to do until due (zero: until something happens), or nil if
	// unknown. Guarded by assignments.mu.
	settled *step.Want
	due     time.Time
	// backupProblem explains why the Secret of the project's backups cannot be used; guarded by assignments.mu.
	backupProblem string
	// frozen is true while a backup has paused the containers; guarded by assignments.mu. turn is held during a pass of the
	// worker. See freeze.
	frozen bool
	turn   sync.Mutex
	// Only the worker of the project uses work.
	work workspace
}

// set replaces the desired state, and drops an assignment with an older epoch.
func (t *task) set(want *step.Want, project *carav1.Project) {
	t.want, t.project, t.held, t.older = want, project, false, nil
}

// hint notifies the agent that something may have happened to a project.
func (a *assignments) hint(project string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners.wake(project)
	if t := a.tasks[project]; t != nil {
		t.hinted = true
		a.queue.Add(project)
	}
}

// hintAll notifies the agent that something may have happened to every project.
func (a *assignments) hintAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for project, t := range a.tasks {
		t.hinted = true
		a.queue.Add(project)
	}
}

// current returns the project's task and its current want, or nil if there is nothing to do yet. look is false if nothing
// happened since the last look found everything as wanted. So one look covers all earlier hints, and events about the
// agent's own actions are obsolete by the next look. If look is false, again is when to look: the queue keeps only the
// earliest time of a key, so a call before that time must schedule it again.
func (a *assignments) current(project string, now time.Time) (t *task, want *step.Want, look bool, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t = a.tasks[project]
	if t == nil || t.held || t.frozen {
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

// settle records that a look found nothing to do.
func (a *assignments) settle(t *task, want *step.Want, now time.Time, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.settled, t.due = want, time.Time{}
	if again > 0 {
		t.due = now.Add(again)
	}
}

// replace replaces want by next, unless a new assignment has arrived meanwhile.
func (a *assignments) replace(t *task, want, next *step.Want) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.want == want {
		t.want = next
	}
}

func (a *assignments) project(t *task) *carav1.Project {
	a.mu.Lock()
	defer a.mu.Unlock()
	return t.project
}

// drop removes a project of which nothing is left, unless a new assignment has arrived meanwhile.
func (a *assignments) drop(project string, want *step.Want) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[project]; t != nil && t.want == want {
		delete(a.tasks, project)
	}
}

// reported records a phase that the server has accepted.
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
		t.settled = &next // the result of the look still holds: it is what was reported
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
	a.queue.Add(project) // to store it on disk: a failed project must not start again with the next agent
}
