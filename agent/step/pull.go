package step

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Pull is the state of one image's pull in this rollout.
type Pull struct {
	Running  bool
	Done     bool
	Progress engine.Progress
	// Err is why the last attempt failed. If Final is true, a retry is pointless. Otherwise the next one is due at Next.
	Err   string
	Final bool
	Count int
	Next  time.Time
}

// Ended returns the state of a pull after it ended with err, including when to retry.
func (p Pull) Ended(err error, limits RestartLimits, now time.Time) Pull {
	p.Running = false
	switch {
	case err == nil:
		return Pull{Done: true, Progress: p.Progress}
	case errors.Is(err, context.Canceled):
		return Pull{}
	}
	p.Count++
	p.Err = err.Error()
	p.Final = errors.Is(err, engine.ErrInvalid)
	pause := limits.delay(p.Count)
	if errors.Is(err, engine.ErrNoRoom) {
		pause = min(pause, longestPause)
	}
	p.Next = now.Add(pause)
	return p
}

func (s *plan) image(svc *carav1.Service) bool {
	ref, present := svc.GetImage(), s.h.Images[svc.GetImage()]
	pull := s.h.Memory.Pulls[ref]
	switch {
	case present && (svc.GetPullPolicy() != api.PullAlways || pull.Done):
		return true
	case pull.Running:
		s.wait(svc.GetName(), time.Time{}, "pulling image %s", ref)
	case !present && svc.GetPullPolicy() == api.PullNever:
		s.fail(svc.GetName(), api.ReasonImageNotFound, "image %s is not on this node and pullPolicy is Never: load it, or let it be pulled", ref)
	case pull.Final:
		s.fail(svc.GetName(), api.ReasonImagePullFailed, "%s", pull.Err)
	case s.now.Before(pull.Next):
		s.wait(svc.GetName(), pull.Next, "image %s: %s", ref, pull.Err)
	case s.w.missingPullSecret(ref) != "":
		s.wait(svc.GetName(), time.Time{}, "image %s: %s", ref, s.w.missingPullSecret(ref))
	default:
		asked := func(a Action) bool { return a.Kind == KindPull && a.Name == ref }
		if !slices.ContainsFunc(s.actions, asked) {
			s.add(Action{Kind: KindPull, Service: svc.GetName(), Name: ref, Reason: "the service needs the image"})
		}
	}
	return false
}

// Images returns the image references of services whose container must be created.
func (w *Want) Images(h *Have) []string {
	s := &view{w: w, h: h}
	refs := map[string]bool{}
	for _, svc := range w.Spec.GetServices() {
		if s.completion(svc) != nil {
			continue
		}
		if c := s.container(svc.GetName()); c == nil || s.outdated(svc, c) != "" || s.wrongLimits(svc, c) || c.StartedAt.IsZero() {
			refs[svc.GetImage()] = true
		}
	}
	return slices.Sorted(maps.Keys(refs))
}
