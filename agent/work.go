package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// workspace is what the worker of one project remembers.
type workspace struct {
	rollout step.Rollout
	memory  step.Memory
	history step.History
	// sightings are those of the last look, by container.
	sightings map[string]step.Sighting
	record    step.Record             // of the assignment
	noted     step.Record             // what of it is on disk
	facts     map[string]engine.Image // of images that containers were made from, by id
	digests   map[string]string       // of images that containers were made from, by image id
	saved     *carav1.Assignment      // what is on disk; nil: nothing
	told      string                  // which changed Secrets an event told of, see tellSecrets
	cleared   bool                    // nothing is on disk for certain
	// Of this turn: the networks and volumes, as long as only actions that cannot change them have succeeded since they
	// were read; nil where they must be read.
	networks []engine.Network
	volumes  []engine.Volume
	// Of this turn, too: the containers that nothing was done to since they were inspected, by id.
	looks map[string]look
	// leaving are the containers that are to be stopped, by id, with the time from which on they get no requests.
	leaving map[string]time.Time
}

// maxPasses bounds the passes of one call. No project needs as many: what goes on is tried again with backoff.
const maxPasses = 200

var errNoRest = fmt.Errorf("there was still something to do after %d looks", maxPasses)

// work brings one project as far as it goes without waiting, and says when to look again.
func (a *Agent) work(ctx context.Context, project string) (time.Duration, error) {
	for n := range maxPasses {
		now := time.Now()
		t, want, look, due := a.current(project, now)
		if t == nil {
			return 0, nil
		}
		if n == 0 {
			t.work.networks, t.work.volumes, t.work.looks = nil, nil, nil
		}
		if !look {
			return due, a.keep(t, want)
		}
		again, more, err := a.pass(ctx, t, want)
		if err == nil && !more {
			a.settle(t, want, now, again)
		}
		if err != nil || !more {
			return again, err
		}
	}
	return 0, errNoRest
}

// pass looks, decides, reports and acts once. more says that it should be done again right away.
func (a *Agent) pass(ctx context.Context, t *task, want *step.Want) (again time.Duration, more bool, err error) {
	w := &t.work
	if w.begin(want) { // a rollout's end that the agent before saw is in the record
		a.reports.forget(want.Project) // what was said of another rollout, the server has put away: say it again, also where it comes to the same
	}
	unkept := a.keep(t, want)
	if unkept != nil && want.Remove {
		return 0, false, unkept
	}
	have, err := a.observe(ctx, want, w)
	if err != nil {
		return 0, false, err
	}
	if a.unpin(ctx, t, want, w) {
		return 0, true, nil
	}
	w.history.Judge(have)
	now := time.Now()
	actions := w.history.Pace(step.Step(want, have, now), want.Limits, now)
	if i := slices.IndexFunc(actions, func(x step.Action) bool { return x.Kind == step.KindFail }); i >= 0 {
		f := a.explain(ctx, want, have, actions[i].Failure)
		if f.Update && w.memory.Update == nil {
			w.memory.Update = f
		} else {
			w.memory.Failure = f
		}
		a.log.Warn("failed", "project", want.Project, "epoch", want.Epoch, "service", f.Service, "reason", string(f.Reason), "update", f.Update)
		return 0, true, nil
	}
	if unkept != nil && !w.covers(want) {
		actions = step.Postponed(actions, unkept)
	}
	a.note(want, w, w.record.Next(want, have, actions, now))
	a.endpoints.set(want.Project, step.Routable(want, have, actions, now))
	actions = a.drained(want, have, w, actions, now)
	a.report(want, have, actions, now)
	a.tellSecrets(ctx, want, have, w)
	todo := slices.DeleteFunc(slices.Clone(actions), func(x step.Action) bool { return x.Kind == step.KindWait })
	if len(todo) == 0 {
		if want.Quiet && len(actions) == 0 {
			a.forget(want)
			a.release(want)
		}
		return step.NextLook(actions, now), false, unkept
	}
	return 0, true, a.execute(ctx, want, have, w, todo)
}

// begin opens a rollout's bookkeeping anew where want is of another one, and says whether it did.
func (w *workspace) begin(want *step.Want) bool {
	if w.rollout == want.Rollout() && w.memory.Pulls != nil {
		if f := w.memory.Update; f != nil && f.Forgotten {
			w.memory.Update = w.record.UpdateFailure(want) // the server may know more by now
		}
		return false
	}
	w.rollout, w.history = want.Rollout(), step.History{}
	w.memory = step.Memory{Pulls: map[string]step.Pull{}, Restarts: map[string]step.Restarts{}, Tries: map[string]step.Try{}}
	w.memory.Update = w.record.UpdateFailure(want)
	if w.digests == nil {
		w.digests = map[string]string{}
	}
	return true
}

// keep has on disk what is in force before anything is done about it, and nothing of what is on its way out.
func (a *Agent) keep(t *task, want *step.Want) error {
	w := &t.work
	if want.Remove {
		if w.cleared {
			return nil
		}
		w.saved, w.cleared, w.record, w.noted = nil, true, step.Record{}, step.Record{}
		return errors.Join(a.disk.remove(want.Project), a.streams.Kept.Remove(want.Project))
	}
	a.mu.Lock()
	project := t.project
	a.mu.Unlock()
	kept := w.saved
	if project == nil || kept != nil && project == kept.GetProject() && maps.Equal(want.SecretVersions, kept.GetSecretVersions()) {
		return nil
	}
	next := keptOf(project, want)
	if proto.Equal(next, kept) {
		return nil
	}
	w.cleared = false
	err := a.disk.save(next)
	a.diskSaid(err)
	if err == nil {
		w.saved = next
	}
	return err
}

// covers says whether the next agent would do with what is on disk as this one does with want: the newest word on how it
// went may be missing there, and nothing else.
func (w *workspace) covers(want *step.Want) bool {
	return w.saved.GetProject() != nil && want.Rollout() == step.RolloutOf(w.saved)
}

// forget lets go of a project that is not ours and of which nothing is left.
func (a *Agent) forget(want *step.Want) {
	a.pulls.Forget(want.Project, nil)
	a.endpoints.set(want.Project, nil)
	a.reports.forget(want.Project)
	a.drop(want.Project, want)
}

// drainPatience bounds how long a container's signal waits for the requests that the ingress sent it.
const drainPatience = 10 * time.Second

// drained puts a container's signal off while it answers requests that it was sent when it still got some, for as long as
// its grace at most. Nothing else of the project waits for that.
func (a *Agent) drained(want *step.Want, have *step.Have, w *workspace, actions []step.Action, now time.Time) []step.Action {
	leaving := map[string]time.Time{}
	out := slices.Clone(actions)
	for i, x := range out {
		if !have.Stops(x) {
			continue
		}
		since, known := w.leaving[x.ID]
		if !known {
			since = now
		}
		leaving[x.ID] = since
		until := since.Add(min(have.Grace(x.ID), drainPatience))
		if now.Before(until) && a.endpoints.busy(have.Find(x.ID).Networks[step.NetworkName(want.Project)].IP, want.Project) {
			out[i] = step.Action{Kind: step.KindWait, Service: x.Service, Until: until, Reason: x.Reason + ", once it has answered its requests"}
		}
	}
	w.leaving = leaving
	return out
}

// execute does what Step said, side by side, begun in order. An engine that did not answer ends the pass; any other
// error is remembered for Step to weigh.
func (a *Agent) execute(ctx context.Context, want *step.Want, have *step.Have, w *workspace, todo []step.Action) error {
	errs := make([]error, len(todo))
	var acts sync.WaitGroup
	turns := a.turns(todo, have)
	for i, action := range todo {
		done, err := turns.take(ctx, action, have) // here, so that they begin in order
		if err != nil {
			errs[i] = err
			continue
		}
		acts.Go(func() {
			defer done()
			errs[i] = a.act(ctx, want, have, action)
		})
	}
	acts.Wait()
	now := time.Now()
	for i, action := range todo {
		w.memory.Remember(want, have, action, errs[i], now)
		if errs[i] == nil {
			w.history.Add(action, have, want.Limits, now)
		}
	}
	w.reread(todo, errs)
	if err := errors.Join(errs...); err != nil && (ctx.Err() != nil || errors.Is(err, engine.ErrUnavailable)) {
		return err
	}
	return nil
}

// reread forgets the networks, volumes and containers that may not be as they were read.
func (w *workspace) reread(done []step.Action, errs []error) {
	for i, action := range done {
		delete(w.looks, action.ID)
		if errs[i] != nil {
			w.looks = nil
		}
		if errs[i] != nil || strings.HasSuffix(string(action.Kind), "Network") {
			w.networks = nil
		}
		if errs[i] != nil || strings.HasSuffix(string(action.Kind), "Volume") {
			w.volumes = nil
		}
	}
}

// note keeps the record, in memory at once and on disk as soon as that is possible.
func (a *Agent) note(want *step.Want, w *workspace, next step.Record) {
	w.record = next
	if want.Remove || next.Same(w.noted) {
		return
	}
	err := a.disk.saveRecord(want.Project, next)
	a.diskSaid(err)
	if err == nil {
		w.noted = next
	}
}
