package step

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Kind is the kind of an action.
type Kind string

// Actions for one project. DeleteContainer first stops the container within its grace period. Wait and Fail do not affect
// the engine: they tell when to look again, and that the rollout has failed.
const (
	KindPull             Kind = "Pull"
	KindFetchFiles       Kind = "FetchFiles"
	KindCreateNetwork    Kind = "CreateNetwork"
	KindRemoveNetwork    Kind = "RemoveNetwork"
	KindCreateVolume     Kind = "CreateVolume"
	KindRemoveVolume     Kind = "RemoveVolume"
	KindCreateContainer  Kind = "CreateContainer"
	KindStartContainer   Kind = "StartContainer"
	KindRestartContainer Kind = "RestartContainer"
	KindUnpauseContainer Kind = "UnpauseContainer"
	KindConnectContainer Kind = "ConnectContainer"
	KindRenameContainer  Kind = "RenameContainer"
	KindUpdateContainer  Kind = "UpdateContainer"
	KindStopContainer    Kind = "StopContainer"
	KindDeleteContainer  Kind = "DeleteContainer"
	KindWait             Kind = "Wait"
	KindFail             Kind = "Fail"
)

// Action is one thing to do, with its reason.
type Action struct {
	Kind    Kind
	Service string // of a container, and of what it waits for
	ID      string // of a container or network
	Name    string // of an image, network or volume
	Reason  string
	// Previous is true for an action on the previous container of a service, or on one of a service that left the manifest. If
	// it is stopped, it is started again if the update fails.
	Previous bool
	// Restart is the token of the request for a restart in place. Empty for other actions.
	Restart string
	// ForMove is true for the stop of a container while its project moves, and for its start if the project continues here.
	ForMove bool
	// Until is when a Wait ends. Zero if it does not end by time.
	Until time.Time
	// Failure of a Fail.
	Failure *Failure
}

// Key identifies an action across passes.
func (a Action) Key() string { return string(a.Kind) + "/" + a.Service + "/" + a.Name }

func (a Action) String() string {
	return strings.Join(strings.Fields(string(a.Kind)+" "+a.Service+" "+a.Name), " ") + ": " + a.Reason
}

// Reasons that say no more than the action itself.
const (
	reasonNext        = "it is created and may start"
	reasonNoContainer = "the service has no container"
	reasonNoNetwork   = "the project has no network"
	reasonDeclared    = "the manifest declares it"
)

// Doing describes the action for people: `starting app`.
func (a Action) Doing() string {
	what := a.Reason
	switch a.Kind {
	case KindPull:
		what = "pulling " + a.Name
	case KindFetchFiles:
		what = "fetching the files of the repository"
	case KindCreateNetwork:
		what = "creating the network"
	case KindRemoveNetwork:
		what = "removing the network"
	case KindCreateVolume:
		what = "creating the volume " + a.Name
	case KindRemoveVolume:
		what = "removing the volume " + a.Name
	case KindCreateContainer:
		what = "creating the container of " + a.Service
	case KindStartContainer:
		what = "starting " + a.Service
	case KindRestartContainer:
		what = "restarting " + a.Service
	case KindUnpauseContainer:
		what = "unpausing " + a.Service
	case KindConnectContainer:
		what = "connecting " + a.Service + " to the network"
	case KindRenameContainer:
		what = "renaming the container of " + a.Service
	case KindUpdateContainer:
		what = "updating the container of " + a.Service
	case KindStopContainer:
		what = "stopping " + a.Service
	case KindDeleteContainer:
		what = "removing a container of " + a.Service
	case KindWait, KindFail:
	}
	switch a.Reason {
	case what, "", reasonNext, reasonNoContainer, reasonNoNetwork, reasonDeclared:
		return what
	}
	return what + " (" + a.Reason + ")"
}

func about(kind Kind, c *engine.Container, reason string) Action {
	return Action{Kind: kind, Service: c.Labels[api.LabelService], ID: c.ID, Name: c.Name, Reason: reason}
}

// previous marks an action as one on the previous container.
func (a Action) previous() Action {
	a.Previous = true
	return a
}

// Step decides what to do next: actions that may run concurrently and are started in this order. After them it is called
// again with fresh state. No actions mean that the engine is in the desired state until something happens.
//
// It never affects an up-to-date container, nor anything that is not ours: Have contains only objects with our labels.
func Step(w *Want, h *Have, now time.Time) []Action {
	s := &step{plan{progress: progress{view{w: w, h: h, now: now}}}}
	switch {
	case w.Remove:
		s.remove(h.Containers, h.Networks, h.Volumes, "the project is being deleted")
	case s.removeStale():
	case s.mustStand():
		s.stopForMove()
	case w.Failure != nil || h.Memory.Failure != nil:
		s.halt()
	case s.continueAfterMove():
	default:
		s.rollOut()
	}
	return s.actions
}

// view compares a project's containers with the manifest.
type view struct {
	w   *Want
	h   *Have
	now time.Time
}

// progress determines how far the rollout is: which services are up, which version serves, and which services wait.
type progress struct{ view }

// plan collects the actions of one decision.
type plan struct {
	progress
	actions []Action
}

// step decides about each service in turn.
type step struct{ plan }

func (s *plan) add(a Action) { s.actions = append(s.actions, a) }

// attempt adds an action. If the action failed before, attempt waits until its next try is due, or fails the rollout with
// the reason failure (empty: never). An action that found no room never fails the rollout, because room may become
// available.
func (s *plan) attempt(a Action, failure api.Reason) {
	t, tried := s.h.Memory.Tries[a.Key()]
	if t.Foreign && failure != "" {
		failure = api.ReasonNameTaken
	}
	switch {
	case tried && !t.NoRoom && (t.Final || t.Count > s.w.Limits.Limit) && failure != "":
		s.fail(a.Service, failure, "%s", t.Err)
	case tried && s.now.Before(t.Next):
		s.add(Action{Kind: KindWait, Service: a.Service, Name: a.Name, Until: t.Next, Reason: t.Err})
	default:
		s.add(a)
	}
}

// fail ends the rollout. If the update has already failed, a further failure of it is only reported.
func (s *plan) fail(service string, reason api.Reason, format string, args ...any) {
	f := &Failure{Service: service, Reason: reason, Message: fmt.Sprintf(format, args...)}
	if svc := s.w.Service(service); svc != nil {
		if s.h.Memory.Update != nil && s.replacing() && !s.untouched(svc) {
			s.wait(service, time.Time{}, "%s", f.Message)
			return
		}
		f.Update = s.keeps(svc)
		if c := s.best(svc, true); c != nil {
			f.Container = c.ID
		}
	}
	s.add(Action{Kind: KindFail, Service: service, Failure: f, Reason: f.Message})
}

func (s *plan) wait(service string, until time.Time, format string, args ...any) {
	s.add(Action{Kind: KindWait, Service: service, Until: until, Reason: fmt.Sprintf(format, args...)})
}

// removeStale removes objects of another assignment: an older epoch, or a deleted project of the same name.
func (s *plan) removeStale() bool {
	networks := slices.DeleteFunc(slices.Clone(s.h.Networks), func(n engine.Network) bool { return s.w.sameAssignment(n.Labels) })
	containers := slices.DeleteFunc(slices.Clone(s.h.Containers), func(c engine.Container) bool {
		return s.w.sameAssignment(c.Labels) && !slices.ContainsFunc(networks, func(n engine.Network) bool { return on(c, &n) })
	})
	volumes := slices.DeleteFunc(slices.Clone(s.h.Volumes), func(v engine.Volume) bool { return s.w.sameAssignment(v.Labels) })
	s.remove(containers, networks, volumes, "it belongs to an older assignment")
	return len(s.actions) > 0
}

// remove removes containers in reverse order, then networks and volumes. Without dependsOn all stop concurrently, starting
// with the last one. With it, dependents stop first.
func (s *plan) remove(containers []engine.Container, networks []engine.Network, volumes []engine.Volume, reason string) {
	for _, c := range s.reversed(containers) {
		if !slices.ContainsFunc(containers, func(d engine.Container) bool { return s.dependsOn(d, c) }) {
			s.delete(c, reason)
		}
	}
	if len(containers) > 0 {
		return
	}
	for _, n := range networks {
		s.attempt(Action{Kind: KindRemoveNetwork, ID: n.ID, Name: n.Name, Reason: reason}, "")
	}
	for _, v := range volumes {
		s.attempt(Action{Kind: KindRemoveVolume, Name: v.Name, Reason: reason}, "")
	}
}

func (s *plan) delete(c engine.Container, reason string) {
	if slices.ContainsFunc(s.actions, func(a Action) bool { return a.ID == c.ID && a.Kind == KindDeleteContainer }) {
		return
	}
	if c.State == engine.StateRemoving {
		s.wait(c.Labels[api.LabelService], s.now.Add(removingPause), "the engine is removing container %s", c.Name)
		return
	}
	s.attempt(about(KindDeleteContainer, &c, reason), "")
}

// removingPause is how long to wait for a container that the engine is removing.
const removingPause = 200 * time.Millisecond

// reversed orders containers by their services, last one first. Those of unknown services come before.
func (s *view) reversed(containers []engine.Container) []engine.Container {
	place := func(c engine.Container) int {
		i := slices.IndexFunc(s.w.Spec.GetServices(), func(v *carav1.Service) bool { return v.GetName() == c.Labels[api.LabelService] })
		if i < 0 {
			return len(s.w.Spec.GetServices())
		}
		return i
	}
	out := slices.Clone(containers)
	slices.SortStableFunc(out, func(a, b engine.Container) int { return place(b) - place(a) })
	return out
}

// dependsOn reports whether the service of container d waits for that of c.
func (s *view) dependsOn(d, c engine.Container) bool {
	if d.ID == c.ID || s.w.Spec == nil {
		return false
	}
	return slices.ContainsFunc(s.w.Service(d.Labels[api.LabelService]).GetDependsOn(), func(dep *carav1.Dependency) bool {
		return dep.GetService() == c.Labels[api.LabelService]
	})
}

// halt stops the running containers of a failed rollout and keeps them for their logs.
func (s *plan) halt() {
	for _, c := range s.reversed(s.h.Containers) {
		if up(c) {
			s.attempt(about(KindStopContainer, &c, "the project has failed"), "")
		}
	}
}
