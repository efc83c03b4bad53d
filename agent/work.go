package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/endpoints"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/stream"
	"github.com/caravanserai/cara/api"
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
	noted     step.Record             // as stored on disk
	facts     map[string]engine.Image // of images that containers were created from, by id
	digests   map[string]string       // of images that containers were created from, by image id
	saved     *carav1.Assignment      // as stored on disk; nil if nothing is
	moveTold  time.Time               // when a report about a move was last repeated
	told      string                  // the version of changed Secrets in the last event, see tellSecrets
	cleared   bool                    // certainly nothing is on disk
	// networks, volumes and managed are valid within one turn, until an action that can change them, or any failed action. Nil if they
	// must be read.
	networks []engine.Network
	volumes  []engine.Volume
	managed  []engine.Volume // the project's Managed volumes
	// looks are valid within one turn: the containers without an action since they were inspected, by id.
	looks map[string]look
	// leaving are the containers that are to be stopped, by id, with the time since when they receive no requests.
	leaving map[string]time.Time
}

// worker brings one project at a time to its desired state: it observes, calls step.Step, reports and acts. The queue never
// passes it the same project concurrently. Everything that the engine returns about a project passes through Want.Values,
// which removes the values of its Secrets, before it is cut, remembered, reported or logged.
type worker struct {
	log         *slog.Logger
	assignments *assignments
	disk        *disk
	kept        *stream.KeptLogs
	machine     *machine
	observer    *observer
	actor       *actor
	reports     *reporter
	endpoints   *endpoints.Table
	events      *events
	released    *released
	mover       *mover
	backups     *backups
}

// maxPasses limits the passes of one call. No project needs as many. Remaining work is retried with backoff.
const maxPasses = 200

var errNoRest = fmt.Errorf("there was still something to do after %d looks", maxPasses)

// work brings one project as far as possible without waiting, and returns when to look again.
func (w *worker) work(ctx context.Context, project string) (time.Duration, error) {
	for n := range maxPasses {
		now := time.Now()
		t, want, look, due := w.assignments.current(project, now)
		if t == nil {
			return 0, nil
		}
		if n == 0 {
			t.work.networks, t.work.volumes, t.work.managed, t.work.looks = nil, nil, nil, nil
		}
		if !look {
			return due, w.keep(t, want)
		}
		if !w.assignments.enter(t) {
			return 0, nil
		}
		again, more, err := w.pass(ctx, t, want)
		t.turn.Unlock()
		if err == nil && !more {
			w.assignments.settle(t, want, now, again)
		}
		if err != nil || !more {
			return again, err
		}
	}
	return 0, errNoRest
}

// pass looks, decides, reports and acts once. more means to do it again immediately.
func (w *worker) pass(ctx context.Context, t *task, want *step.Want) (again time.Duration, more bool, err error) {
	ws := &t.work
	if ws.begin(want) { // the record has the failure of a rollout that an earlier agent saw
		w.reports.forget(want.Project) // the server discarded reports of another rollout: send them even if equal
	}
	unkept := w.keep(t, want)
	if unkept != nil && want.Remove {
		return 0, false, unkept
	}
	have, err := w.observer.observe(ctx, want, ws)
	if err != nil {
		return 0, false, err
	}
	if w.unpin(ctx, t, want, ws) {
		return 0, true, nil
	}
	have.Moving = w.mover.state(want)
	ws.history.Judge(have)
	now := time.Now()
	actions := ws.history.Pace(step.Step(want, have, now), want.Limits, now)
	if i := slices.IndexFunc(actions, func(x step.Action) bool { return x.Kind == step.KindFail }); i >= 0 {
		f := w.observer.explain(ctx, want, have, actions[i].Failure)
		if f.Update && ws.memory.Update == nil {
			ws.memory.Update = f
		} else {
			ws.memory.Failure = f
		}
		w.log.Warn("failed", "project", want.Project, "epoch", want.Epoch, "service", f.Service, "reason", string(f.Reason), "update", f.Update)
		return 0, true, nil
	}
	if unkept != nil && !ws.covers(want) {
		actions = step.Postponed(actions, unkept)
	}
	if err := w.note(want, ws, ws.record.Next(want, have, actions, now)); err != nil && !ws.noted.Knows(want, ws.record) {
		actions, unkept = step.Postponed(actions, err), err
	}
	w.endpoints.Set(want.Project, step.Routable(want, have, actions, now))
	actions = w.drained(want, have, ws, actions, now)
	w.reportMove(want, have, ws, now)
	w.report(want, have, actions, now)
	w.mover.sync(want, unkept == nil && step.MoveStopped(want, have))
	actions = step.MoveDue(want, actions, now)
	w.tellSecrets(ctx, want, have, ws)
	todo := slices.DeleteFunc(slices.Clone(actions), func(x step.Action) bool { return x.Kind == step.KindWait })
	if len(todo) == 0 {
		if want.Quiet && len(actions) == 0 {
			w.forget(want)
			w.released.add(want)
		}
		return step.NextLook(actions, now), false, unkept
	}
	return 0, true, w.actor.execute(ctx, want, have, ws, todo)
}

// begin starts new bookkeeping if want belongs to another rollout, and reports whether it did.
func (ws *workspace) begin(want *step.Want) bool {
	if ws.rollout == want.Rollout() && ws.memory.Pulls != nil {
		if f := ws.memory.Update; f != nil && f.Forgotten {
			ws.memory.Update = ws.record.UpdateFailure(want) // the server may have the message by now
		}
		return false
	}
	ws.rollout, ws.history = want.Rollout(), step.History{}
	ws.memory = step.Memory{Pulls: map[string]step.Pull{}, Restarts: map[string]step.Restarts{}, Tries: map[string]step.Try{}}
	ws.memory.Update = ws.record.UpdateFailure(want)
	if ws.digests == nil {
		ws.digests, ws.facts = map[string]string{}, map[string]engine.Image{}
	}
	return true
}

// keep stores an assignment on disk before anything is done about it, and removes the files of a project that is being
// removed.
func (w *worker) keep(t *task, want *step.Want) error {
	ws := &t.work
	if want.Remove {
		if ws.cleared {
			return nil
		}
		ws.saved, ws.record, ws.noted = nil, step.Record{}, step.Record{}
		if err := w.kept.Remove(want.Project); err != nil {
			return err
		}
		err := w.disk.remove(want.Project) // last: as long as it exists, the next agent retries
		ws.cleared = err == nil
		return err
	}
	project := w.assignments.project(t)
	kept := ws.saved
	if project == nil || kept != nil && project == kept.GetProject() && maps.Equal(want.SecretVersions, kept.GetSecretVersions()) {
		return nil
	}
	next := &carav1.Assignment{Project: project, SecretVersions: want.SecretVersions} // no values of Secrets and no credentials
	if proto.Equal(next, kept) {
		return nil
	}
	ws.cleared = false
	err := w.disk.save(next)
	w.machine.diskSaid(err)
	if err == nil {
		ws.saved = next
	}
	return err
}

// covers reports whether the next agent would decide from the disk as this one does from want. Only the newest phase may be
// missing there.
func (ws *workspace) covers(want *step.Want) bool {
	return ws.saved.GetProject() != nil && want.Rollout() == step.RolloutOf(ws.saved)
}

// forget drops a project that is not ours and of which nothing is left.
func (w *worker) forget(want *step.Want) {
	w.actor.pulls.Forget(want.Project, nil)
	w.endpoints.Set(want.Project, nil)
	w.reports.forget(want.Project)
	w.assignments.drop(want.Project, want)
}

// drainPatience limits how long a container's stop waits for its current requests.
const drainPatience = 10 * time.Second

// drained postpones the stop of a container that still has requests from before it left the endpoints, for at most its grace
// period. Nothing else of the project waits for that.
func (w *worker) drained(want *step.Want, have *step.Have, ws *workspace, actions []step.Action, now time.Time) []step.Action {
	leaving := map[string]time.Time{}
	out := slices.Clone(actions)
	for i, x := range out {
		if !have.Stops(x) {
			continue
		}
		since := cmp.Or(ws.leaving[x.ID], now)
		leaving[x.ID] = since
		until := since.Add(min(have.Grace(x.ID), drainPatience))
		if now.Before(until) && w.endpoints.Busy(have.Find(x.ID).Networks[step.NetworkName(want.Project)].IP, want.Project) {
			out[i] = step.Action{Kind: step.KindWait, Service: x.Service, Until: until, Reason: x.Reason + ", once it has answered its requests"}
		}
	}
	ws.leaving = leaving
	return out
}

// reread drops the networks, volumes and containers that may have changed since they were read.
func (ws *workspace) reread(done []step.Action, errs []error) {
	for i, action := range done {
		delete(ws.looks, action.ID)
		if errs[i] != nil {
			ws.looks = nil
		}
		if errs[i] != nil || strings.HasSuffix(string(action.Kind), "Network") {
			ws.networks = nil
		}
		if errs[i] != nil || strings.HasSuffix(string(action.Kind), "Volume") {
			ws.volumes, ws.managed = nil, nil
		}
	}
}

// note stores the record in memory, and on disk as soon as possible.
func (w *worker) note(want *step.Want, ws *workspace, next step.Record) error {
	ws.record = next
	if want.Remove || next.Same(ws.noted) {
		return nil
	}
	err := w.disk.saveRecord(want.Project, next)
	w.machine.diskSaid(err)
	if err == nil {
		ws.noted = next
	}
	return err
}

func (w *worker) report(want *step.Want, have *step.Have, actions []step.Action, now time.Time) {
	if step.Reportable(want, have) {
		report := step.Report(want, have, actions, now)
		var warnings []*carav1.Condition
		report.Backup, warnings = w.backups.report(want, now)
		report.Conditions = append(report.Conditions, warnings...)
		w.reports.put(report)
	}
}

// reportMove prepares the report about a move: it says only what is on disk, and it is repeated.
func (w *worker) reportMove(want *step.Want, have *step.Have, ws *workspace, now time.Time) {
	have.Record.Verified = ws.noted.Verified
	if want.Move != nil && now.Sub(ws.moveTold) >= moveRepeat {
		ws.moveTold = now
		w.reports.forget(want.Project)
	}
}

// moveRepeat is how often a report about a move is repeated: the server may not be able to continue yet.
const moveRepeat = time.Second

// tellSecrets records an event when containers are replaced because Secrets have new values.
func (w *worker) tellSecrets(ctx context.Context, want *step.Want, have *step.Have, ws *workspace) {
	version, message := step.NewSecrets(want, have)
	if message == "" || ws.told == version {
		return
	}
	ws.told = version
	w.events.ofProject(ctx, want, api.EventNormal, api.ReasonSecretChanged, message)
}

// unpin goes back to the tag of each service whose digest the registry no longer has, and records an event.
func (w *worker) unpin(ctx context.Context, t *task, want *step.Want, ws *workspace) (unpinned bool) {
	next, said := want.Unpin(ws.memory.Pulls)
	for _, message := range said {
		w.log.Warn("the digest of an image is gone", "project", want.Project, "detail", message)
		w.events.ofProject(ctx, want, api.EventWarning, api.ReasonImageDigestGone, message)
	}
	if next == nil {
		return false
	}
	w.assignments.replace(t, want, next)
	return true
}
