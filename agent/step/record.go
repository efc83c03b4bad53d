package step

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Record is what the agent must know about an assignment and cannot read from the engine. It outlives a rollout, and it is
// stored on disk for the next agent. It contains no text from a container or the engine, which may contain a Secret.
type Record struct {
	// UID and Epoch identify the assignment. A record of another assignment is ignored.
	UID   string `json:"uid"`
	Epoch int32  `json:"epoch"`
	// Served is the last version whose services were all up, or nil.
	Served *Served `json:"served,omitempty"`
	// Completed are the services that ended successfully, by name. Such a service does not run again if its container is
	// removed.
	Completed map[string]Completion `json:"completed,omitempty"`
	// Yielded are the containers, by id, that were stopped to make room for their successors. They are started again if the
	// update fails.
	Yielded map[string]bool `json:"yielded,omitempty"`
	// InPlace are the containers, by id, that were or are being restarted in place.
	InPlace map[string]InPlace `json:"inPlace,omitempty"`
	// Made are the uids of the Managed volumes that this node has had. Like the data, they outlive the assignment.
	Made map[string]bool `json:"made,omitempty"`
	// StoppedForMove are the containers that were stopped for a move, by id, with the start time of the run that was ended, by
	// the engine's clock.
	StoppedForMove map[string]time.Time `json:"stoppedForMove,omitempty"`
	// Verified is the move whose copy was found equal, while this node must not start the project.
	Verified *Verified `json:"verified,omitempty"`
	// Failed is the update that failed, while it is the newest.
	Failed *FailedUpdate `json:"failed,omitempty"`
}

// Served is a version of a project whose rollout succeeded.
type Served struct {
	Generation int32             `json:"generation"`
	Restart    string            `json:"restart,omitempty"`
	Restarts   map[string]string `json:"restarts,omitempty"` // by service; older agents stored only Restart
	Hashes     map[string]string `json:"hashes"`             // run hashes, by service
}

// Completion describes how a service ended successfully.
type Completion struct {
	RunHash     string    `json:"runHash"`
	Restart     string    `json:"restart,omitempty"`
	ImageDigest string    `json:"imageDigest,omitempty"`
	ContainerID string    `json:"containerId"`
	StartedAt   time.Time `json:"startedAt"`
}

// FailedUpdate identifies an update that failed. The project's conditions have the message.
type FailedUpdate struct {
	Generation int32      `json:"generation"`
	Restart    string     `json:"restart,omitempty"`
	Service    string     `json:"service"`
	Reason     api.Reason `json:"reason"`
}

// Same reports whether two records are equal.
func (r Record) Same(other Record) bool {
	if !r.sameMove(other) || len(r.Completed) != len(other.Completed) || !maps.Equal(r.Yielded, other.Yielded) || !maps.Equal(r.Made, other.Made) {
		return false
	}
	for service, c := range r.Completed {
		d, ok := other.Completed[service]
		if !ok || c.ContainerID != d.ContainerID || c.RunHash != d.RunHash || c.ImageDigest != d.ImageDigest || c.Restart != d.Restart {
			return false
		}
	}
	if !maps.EqualFunc(r.InPlace, other.InPlace, func(x, y InPlace) bool { return x.Token == y.Token && x.Run.Equal(y.Run) }) {
		return false
	}
	return r.UID == other.UID && r.Epoch == other.Epoch && reflect.DeepEqual(r.Served, other.Served) && reflect.DeepEqual(r.Failed, other.Failed)
}

// of reports whether the record is about the assignment of w.
func (r Record) of(w *Want) bool { return r.UID == w.UID && r.Epoch == w.Epoch }

// UpdateFailure returns why the update to w failed, if the agent or an earlier one saw that, or nil. The message is the one
// that the server has.
func (r Record) UpdateFailure(w *Want) *Failure {
	f := r.Failed
	if f == nil || !r.of(w) || f.Generation != w.Generation || f.Restart != w.RestartToken {
		return nil
	}
	message, told := strings.CutPrefix(w.Said, updateFailed(f.Service))
	if !told {
		message = "the agent saw it before it was started anew; apply a change, or restart the service, to try again"
	}
	return &Failure{Service: f.Service, Reason: f.Reason, Message: message, Update: true, Forgotten: !told}
}

// Next returns the record after a look and its decisions. It changes only if something happened that must be remembered.
func (r Record) Next(w *Want, h *Have, actions []Action, now time.Time) Record {
	out := Record{UID: w.UID, Epoch: w.Epoch, Completed: map[string]Completion{}, Yielded: map[string]bool{}, Made: r.made(w, h)}
	if r.of(w) {
		out.Served = r.Served
		maps.Copy(out.Completed, r.Completed)
		for id := range r.Yielded {
			if h.Find(id).ID != "" {
				out.Yielded[id] = true
			}
		}
	}
	out.InPlace = r.recordInPlace(h, actions)
	r.recordMove(&out, w, h, actions)
	for _, a := range actions {
		if a.Kind == KindStopContainer && a.Previous {
			out.Yielded[a.ID] = true
		}
	}
	s := &progress{view{w: w, h: h, now: now}}
	s.recordCompleted(out.Completed)
	if f := h.Memory.Update; f != nil {
		out.Failed = &FailedUpdate{Generation: w.Generation, Restart: w.RestartToken, Service: f.Service, Reason: f.Reason}
	} else if s.servesAll() {
		out.Served = &Served{Generation: w.Generation, Restart: w.RestartToken, Restarts: w.Restarts, Hashes: w.RunHashes}
	}
	return out
}

// made returns the uids of Managed volumes that are or were in the engine.
func (r Record) made(w *Want, h *Have) map[string]bool {
	out := maps.Clone(r.Made)
	for volume, use := range w.Uses {
		if !h.inEngine(w.source(volume).Volume, use.GetUid()) {
			continue
		}
		if out == nil {
			out = map[string]bool{}
		}
		out[use.GetUid()] = true
	}
	return out
}

// Knows reports whether the record has every Managed volume of the project that was made, and what happened for a move. Until
// it is on disk, no container that mounts such a volume may be created: the next agent could take lost data for a volume that
// was never made. And no container may be stopped for a move: the next agent could take that for an exit.
func (r Record) Knows(w *Want, next Record) bool {
	if !r.knowsMove(next) {
		return false
	}
	for _, use := range w.Uses {
		if next.Made[use.GetUid()] && !r.Made[use.GetUid()] {
			return false
		}
	}
	return true
}

// recordCompleted adds the services that have ended successfully, and removes those that left the manifest.
func (s *progress) recordCompleted(completed map[string]Completion) {
	maps.DeleteFunc(completed, func(service string, _ Completion) bool { return s.w.Service(service) == nil })
	for _, svc := range s.w.Spec.GetServices() {
		c := s.best(svc, true)
		if c == nil || !s.done(svc, c) {
			continue
		}
		completed[svc.GetName()] = Completion{
			RunHash: s.w.RunHashes[svc.GetName()], Restart: s.restartedFor(c), ImageDigest: s.h.Digests[c.ImageID],
			ContainerID: c.ID, StartedAt: c.StartedAt,
		}
	}
}

// completion returns how a service without a container has ended successfully, or nil if it must run.
func (s *view) completion(svc *carav1.Service) *Completion {
	c, ok := s.h.Record.Completed[svc.GetName()]
	switch {
	case !ok || !s.h.Record.of(s.w) || !ends(svc) || c.RunHash != s.w.RunHashes[svc.GetName()]:
		return nil
	case s.w.restartWanted(svc.GetName(), c.Restart):
		return nil
	case strings.Contains(svc.GetImage(), "@") && c.ImageDigest != "" && c.ImageDigest != svc.GetImage():
		return nil // the image has changed
	case s.best(svc, true) != nil:
		return nil // its container shows the current state
	}
	return &c
}

// ends reports whether a service may end successfully.
func ends(svc *carav1.Service) bool {
	return svc.GetRestartPolicy() == api.RestartNever || svc.GetRestartPolicy() == api.RestartOnFailure
}

// replacing reports whether this rollout is an update: another version of the project served here before.
func (s *progress) replacing() bool {
	served := s.h.Record.Served
	return served != nil && s.h.Record.of(s.w) &&
		(served.Generation != s.w.Generation || served.Restart != s.w.RestartToken || !maps.Equal(served.Hashes, s.w.RunHashes))
}

// untouched reports whether an update leaves a service unchanged.
func (s *progress) untouched(svc *carav1.Service) bool {
	served := s.h.Record.Served
	return served != nil && served.Hashes[svc.GetName()] == s.w.RunHashes[svc.GetName()] &&
		(served.Restart == s.w.RestartToken || served.Restarts[svc.GetName()] == s.w.Restarts[svc.GetName()])
}

// servesAll reports whether the current version has come up for good. Later failures are not the update's.
func (s *progress) servesAll() bool {
	if s.w.Phase != api.PhaseRunning || s.w.Failure != nil || s.h.Memory.Failure != nil || s.updating() {
		return false
	}
	return !slices.ContainsFunc(s.w.Spec.GetServices(), func(svc *carav1.Service) bool {
		_, proven := s.proven(svc)
		return !proven
	})
}

// provenAfter is how long a service that may end must have run to count as started successfully.
const provenAfter = time.Minute

// proven reports whether a service of the current version works and is unlikely to fail immediately. If only time is
// missing, until is when it will be proven.
func (s *progress) proven(svc *carav1.Service) (until time.Time, proven bool) {
	c := s.best(svc, true)
	switch {
	case c == nil:
		return time.Time{}, s.completion(svc) != nil
	case s.done(svc, c):
		return time.Time{}, true
	case c.State != engine.StateRunning || svc.GetRestartPolicy() == api.RestartNever:
		return time.Time{}, false
	}
	until, unsettled := s.unsettled(svc, c, true)
	if svc.GetRestartPolicy() == api.RestartOnFailure {
		until = c.StartedAt.Add(provenAfter)
		unsettled = s.now.Before(until)
	}
	return until, !unsettled && s.works(svc, c, true)
}

// prove waits until the services of a new version have run long enough.
func (s *plan) prove() {
	if s.w.Phase != api.PhaseRunning || s.h.Memory.Update != nil || s.h.Record.Served != nil && !s.replacing() {
		return
	}
	for _, svc := range s.w.Spec.GetServices() {
		if until, proven := s.proven(svc); !proven && s.now.Before(until) {
			s.wait(svc.GetName(), until, "service %s has to stay up for a while before its update counts as done", svc.GetName())
		}
	}
}
