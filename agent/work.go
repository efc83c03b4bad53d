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
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// workspace is what the worker of one project remembers.
type workspace struct {
	rollout rollout
	memory  Memory
	deeds   deeds
	// sightings are those of the last look, by container.
	sightings map[string]sighting
	record    Record                  // of the assignment
	noted     Record                  // what of it is on disk
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
func (a *Agent) pass(ctx context.Context, t *task, want *Want) (again time.Duration, more bool, err error) {
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
	w.deeds.judge(have)
	now := time.Now()
	actions := w.deeds.paced(Step(want, have, now), want.Limits, now)
	if i := slices.IndexFunc(actions, func(x Action) bool { return x.Kind == KindFail }); i >= 0 {
		f := a.explain(ctx, want, have, actions[i].Failure)
		if f.Update && w.memory.Update == nil {
			w.memory.Update = f
		} else {
			w.memory.Failure = f
		}
		a.log.Warn("failed", "project", want.Project, "epoch", want.Epoch, "service", f.Service, "reason", f.Reason, "update", f.Update)
		return 0, true, nil
	}
	if unkept != nil && !w.covers(want) {
		actions = postponed(actions, unkept)
	}
	a.note(want, w, w.record.next(want, have, actions, now))
	a.endpoints.set(want.Project, routable(want, have, actions, now))
	actions = a.drained(want, have, w, actions, now)
	a.report(want, have, actions, now)
	a.tellSecrets(ctx, want, have, w)
	todo := slices.DeleteFunc(slices.Clone(actions), func(x Action) bool { return x.Kind == KindWait })
	if len(todo) == 0 {
		if want.Quiet && len(actions) == 0 {
			a.forget(want)
			a.release(want)
		}
		return nextLook(actions, now), false, unkept
	}
	return 0, true, a.execute(ctx, want, have, w, todo)
}

// begin opens a rollout's bookkeeping anew where want is of another one, and says whether it did.
func (w *workspace) begin(want *Want) bool {
	if w.rollout == want.rollout() && w.memory.Pulls != nil {
		if f := w.memory.Update; f != nil && f.Forgotten {
			w.memory.Update = w.record.failed(want) // the server may know more by now
		}
		return false
	}
	w.rollout, w.deeds = want.rollout(), deeds{}
	w.memory = Memory{Pulls: map[string]Pull{}, Restarts: map[string]Restarts{}, Tries: map[string]Try{}}
	w.memory.Update = w.record.failed(want)
	if w.digests == nil {
		w.digests = map[string]string{}
	}
	return true
}

// keep has on disk what is in force before anything is done about it, and nothing of what is on its way out.
func (a *Agent) keep(t *task, want *Want) error {
	w := &t.work
	if want.Remove {
		if w.cleared {
			return nil
		}
		w.saved, w.cleared, w.record, w.noted = nil, true, Record{}, Record{}
		return a.disk.remove(want.Project)
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
func (w *workspace) covers(want *Want) bool {
	p := w.saved.GetProject()
	return p != nil && want.rollout() == rollout{
		uid: p.GetMetadata().GetUid(), epoch: p.GetStatus().GetEpoch(),
		generation: p.GetMetadata().GetGeneration(), restart: p.GetStatus().GetRestartToken(),
		values: valuesVersion(w.saved.GetSecretVersions(), api.ManualSecrets(p)),
	}
}

// postponed lets through, of what was decided, what keeps up what there is. All else must not be begun while an agent that
// took over here would know nothing of it.
func postponed(actions []Action, why error) []Action {
	out := slices.Clone(actions)
	for i, x := range out {
		switch x.Kind {
		case KindRestartContainer, KindUnpauseContainer, KindConnectContainer, KindWait:
		case KindStopContainer:
			if x.Previous { // it would make room for a successor
				out[i] = Action{Kind: KindWait, Service: x.Service, Name: x.Name, Reason: why.Error()}
			}
		default:
			out[i] = Action{Kind: KindWait, Service: x.Service, Name: x.Name, Reason: why.Error()}
		}
	}
	return out
}

// forget lets go of a project that is not ours and of which nothing is left.
func (a *Agent) forget(want *Want) {
	a.pulls.forget(want.Project, nil)
	a.endpoints.set(want.Project, nil)
	a.reports.forget(want.Project)
	a.drop(want.Project, want)
}

// nextLook is when the first of the waits ends; 0 where something else than time ends them.
func nextLook(actions []Action, now time.Time) time.Duration {
	var again time.Duration
	for _, x := range actions {
		if x.Until.IsZero() {
			continue
		}
		if d := max(x.Until.Sub(now), time.Millisecond); again == 0 || d < again {
			again = d
		}
	}
	return again
}

// routable are the services that may get requests, each with the address of the container that serves: up, healthy, and
// not about to be stopped. The health of one that is not as wanted any more is known where its own check was seen.
func routable(want *Want, have *Have, actions []Action, now time.Time) map[string]string {
	out := map[string]string{}
	if want.Remove || want.Failure != nil || have.Memory.Failure != nil {
		return out
	}
	s := &step{w: want, h: have, now: now}
	for _, svc := range want.Spec.GetServices() {
		c := s.serving(svc)
		if c == nil || c.State != engine.StateRunning {
			continue
		}
		leaving := slices.ContainsFunc(actions, func(x Action) bool {
			return x.ID == c.ID && (x.Kind == KindDeleteContainer || x.Kind == KindStopContainer)
		})
		health, probed := have.Health[c.ID]
		checked := probed || s.check(svc, c) != nil && s.outdated(svc, c) == ""
		ip := c.Networks[networkName(want.Project)].IP
		if ip != "" && !leaving && (!checked || health.State == api.HealthHealthy) {
			out[svc.GetName()] = ip
		}
	}
	return out
}

// drainPatience bounds how long a container's signal waits for the requests that the ingress sent it.
const drainPatience = 10 * time.Second

// drained puts a container's signal off while it answers requests that it was sent when it still got some, for as long as
// its grace at most. Nothing else of the project waits for that.
func (a *Agent) drained(want *Want, have *Have, w *workspace, actions []Action, now time.Time) []Action {
	leaving := map[string]time.Time{}
	out := slices.Clone(actions)
	for i, x := range out {
		if !have.stops(x) {
			continue
		}
		since, known := w.leaving[x.ID]
		if !known {
			since = now
		}
		leaving[x.ID] = since
		until := since.Add(min(have.grace(x.ID), drainPatience))
		if now.Before(until) && a.endpoints.busy(have.find(x.ID).Networks[networkName(want.Project)].IP, want.Project) {
			out[i] = Action{Kind: KindWait, Service: x.Service, Until: until, Reason: x.Reason + ", once it has answered its requests"}
		}
	}
	w.leaving = leaving
	return out
}

// execute does what Step said, side by side, begun in order. An engine that did not answer ends the pass; any other
// error is remembered for Step to weigh.
func (a *Agent) execute(ctx context.Context, want *Want, have *Have, w *workspace, todo []Action) error {
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
		w.remember(want, have, action, errs[i], now)
		if errs[i] == nil {
			w.deeds.did(action, have, want.Limits, now)
		}
	}
	w.reread(todo, errs)
	if err := errors.Join(errs...); err != nil && (ctx.Err() != nil || errors.Is(err, engine.ErrUnavailable)) {
		return err
	}
	return nil
}

// reread forgets the networks, volumes and containers that may not be as they were read.
func (w *workspace) reread(done []Action, errs []error) {
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

// remember keeps what an action's outcome means for the next decision.
func (w *workspace) remember(want *Want, have *Have, action Action, err error, now time.Time) {
	switch {
	case err == nil:
		delete(w.memory.Tries, action.Key())
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, context.Canceled):
		return
	default:
		t, noRoom := w.memory.Tries[action.Key()], errors.Is(err, engine.ErrNoRoom)
		if t.NoRoom != noRoom { // attempts that found no room do not count against the others
			t = Try{NoRoom: noRoom}
		}
		t.Count++
		pause := want.Limits.delay(t.Count)
		if noRoom {
			pause = min(pause, longestPause)
		}
		t.Err, t.Next = err.Error(), now.Add(pause)
		t.Foreign = errors.Is(err, engine.ErrForeign)
		t.Final = t.Foreign || errors.Is(err, engine.ErrInvalid)
		w.memory.Tries[action.Key()] = t
		return
	}
	if action.Kind == KindPull {
		pull := w.memory.Pulls[action.Name]
		pull.Running = true
		w.memory.Pulls[action.Name] = pull
	}
	if action.Kind == KindRestartContainer && action.Restart == "" { // what an operator asked for is no failure
		c, key := have.find(action.ID), action.Service
		if action.Previous {
			key = action.ID
		}
		w.memory.Restarts[key] = want.Limits.again(w.memory.Restarts[key], c.StartedAt, c.FinishedAt, now)
	}
}

// snapshot of the memory for one decision: Step gets values that nobody changes.
func (m Memory) snapshot() Memory {
	return Memory{Pulls: maps.Clone(m.Pulls), Restarts: maps.Clone(m.Restarts), Tries: maps.Clone(m.Tries), Failure: m.Failure, Update: m.Update}
}

// note keeps the record, in memory at once and on disk as soon as that is possible.
func (a *Agent) note(want *Want, w *workspace, next Record) {
	w.record = next
	if want.Remove || next.same(w.noted) {
		return
	}
	err := a.disk.saveRecord(want.Project, next)
	a.diskSaid(err)
	if err == nil {
		w.noted = next
	}
}
