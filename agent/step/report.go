package step

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// MaxMessage is the maximum length of a status message, from the API contract.
const MaxMessage = 8000

// report builds the status for the server.
type report struct{ progress }

// Reportable reports whether to report a project now. An agent that has just started does not report what the server knows
// better: a failed update from before, until the server has sent its message, and a running project, until each check has
// ended once.
func Reportable(w *Want, h *Have) bool {
	if w.Quiet {
		return false
	}
	if f := h.Memory.Update; f != nil && f.Forgotten && !w.HaveSecrets {
		return false
	}
	if w.Phase != api.PhaseRunning {
		return true
	}
	return !slices.ContainsFunc(Checks(w, h), func(c Check) bool {
		_, probed := h.Health[c.Run.ID]
		return !probed && c.How != nil
	})
}

// Report returns the status of a project for the server. It is a pure function of Step's input and output.
func Report(w *Want, h *Have, actions []Action, now time.Time) *carav1.UpdateProjectStatusRequest {
	r := &carav1.UpdateProjectStatusRequest{
		Name: w.Project, Uid: w.UID, Epoch: w.Epoch, ObservedGeneration: w.Generation,
	}
	s := &report{progress{view{w: w, h: h, now: now}}}
	for _, svc := range w.Spec.GetServices() {
		r.Services = append(r.Services, s.serviceStatus(svc, actions))
	}
	failure := w.Failure
	if h.Memory.Failure != nil {
		failure = h.Memory.Failure
	}
	switch {
	case w.Remove:
		s.reportRemoval(r, actions)
	case s.mustStand() && w.Phase != api.PhaseFailed:
		r.Conditions = []*carav1.Condition{
			s.imagesReady(actions),
			api.NewCondition(api.CondReady, api.StatusFalse, api.ReasonMoving, "the project is stopped while it moves to "+w.moveTarget()),
		}
	case failure != nil:
		s.reportFailure(r, failure)
	default:
		s.reportRollout(r, actions)
	}
	for _, c := range []*carav1.Condition{s.secretChanged(failure != nil), s.unmountedVolumes()} {
		if c != nil && !w.Remove {
			r.Conditions = append(r.Conditions, c)
		}
	}
	s.reportMove(r)
	for _, c := range r.Conditions {
		c.ObservedGeneration, c.Message = w.Generation, text.Clip(c.Message, MaxMessage)
	}
	return r
}

func (s *report) reportRemoval(r *carav1.UpdateProjectStatusRequest, actions []Action) {
	if len(actions) == 0 {
		r.Phase = api.PhaseTerminated
		r.Conditions = []*carav1.Condition{
			api.NewCondition(api.CondReady, api.StatusFalse, api.ReasonTerminated, "containers, network and volumes are gone"),
		}
		return
	}
	r.Conditions = []*carav1.Condition{api.NewCondition(api.CondReady, api.StatusFalse, api.ReasonTerminating, because(actions))}
}

func (s *report) reportFailure(r *carav1.UpdateProjectStatusRequest, f *Failure) {
	if s.w.Phase != api.PhaseFailed {
		r.Phase = api.PhaseFailed
	}
	message := f.Message
	if f.Service != "" && !strings.Contains(message, "service "+f.Service) {
		message = "service " + f.Service + ": " + message
	}
	r.Conditions = []*carav1.Condition{
		api.NewCondition(api.CondReady, api.StatusFalse, f.Reason, message),
		api.NewCondition(api.CondPhase, api.StatusTrue, f.Reason, message),
	}
	if strings.HasPrefix(string(f.Reason), "Image") {
		message = andAlso(message, s.w.unusedPullSecrets())
		r.Conditions = append(r.Conditions, api.NewCondition(api.CondImagesReady, api.StatusFalse, f.Reason, message))
	}
	for _, v := range r.Services {
		if v.Name == f.Service {
			v.State, v.Message = api.ServiceFailed, text.Clip(f.Message, MaxMessage)
		}
	}
}

func (s *report) reportRollout(r *carav1.UpdateProjectStatusRequest, actions []Action) {
	r.Conditions = []*carav1.Condition{s.imagesReady(actions)}
	up, total := s.countUp(r, actions), len(r.Services)
	if failed := s.h.Memory.Update; failed != nil {
		r.Conditions = append(r.Conditions, api.NewCondition(api.CondReady, api.StatusFalse, api.ReasonUpdateFailed,
			updateFailed(failed.Service)+failed.Message))
		return
	}
	if up < total {
		r.Conditions = append(r.Conditions, s.notUp(up, total, actions))
		return
	}
	if s.w.Phase == api.PhaseScheduled {
		r.Phase = api.PhaseRunning
		r.Conditions = append(r.Conditions, api.NewCondition(api.CondPhase, api.StatusTrue, api.ReasonServicesUp, fmt.Sprintf("%d of %d services are up", up, total)))
	}
	r.Conditions = append(r.Conditions, api.NewCondition(api.CondReady, api.StatusTrue, api.ReasonServicesUp, fmt.Sprintf("%d of %d services are up", up, total)))
}

// countUp returns how many services are up, and writes at the others why they are not.
func (s *report) countUp(r *carav1.UpdateProjectStatusRequest, actions []Action) (up int) {
	failed := s.h.Memory.Update
	for i, svc := range s.w.Spec.GetServices() {
		switch {
		case failed != nil && failed.Service == svc.GetName():
			if s.previous(svc) == nil {
				r.Services[i].State = api.ServiceFailed
			}
			r.Services[i].Message = text.Clip("its update failed: "+failed.Message, MaxMessage)
		case s.isUp(svc):
			up++
		case r.Services[i].Message == "":
			r.Services[i].Message = because(slices.DeleteFunc(slices.Clone(actions), func(a Action) bool { return a.Service != svc.GetName() }))
		}
	}
	return up
}

// notUp returns the condition of a project of which not all services are up.
func (s *report) notUp(up, total int, actions []Action) *carav1.Condition {
	reason, what := api.Reason(api.ReasonStarting), "up"
	switch {
	case s.besideEachOther(): // as far as known, nothing is down
		reason, what = api.ReasonUpdating, "up to date"
	case s.w.Phase == api.PhaseRunning:
		reason = api.ReasonServiceDown
	}
	return api.NewCondition(api.CondReady, api.StatusFalse, reason, fmt.Sprintf("%d of %d services are %s: %s", up, total, what, cmp.Or(because(actions), "waiting")))
}

// updateFailed is the prefix of a condition's message. The next agent parses the rest of the message.
func updateFailed(service string) string {
	return fmt.Sprintf("the update of service %s failed, and the previous version keeps serving: ", service)
}

// because joins the distinct reasons of actions.
func because(actions []Action) string {
	var reasons []string
	for _, a := range actions {
		reason := a.Doing()
		if !slices.Contains(reasons, reason) && len(reasons) < 5 {
			reasons = append(reasons, reason)
		}
	}
	return strings.Join(reasons, "; ")
}

func (s *report) imagesReady(actions []Action) *carav1.Condition {
	var pulling, failing []string
	for _, ref := range slices.Sorted(maps.Keys(s.h.Memory.Pulls)) {
		switch p := s.h.Memory.Pulls[ref]; {
		case p.Running:
			pulling = append(pulling, ref+progressText(p.Progress))
		case p.Err != "":
			failing = append(failing, fmt.Sprintf("%s (tried %d times)", p.Err, p.Count))
		}
	}
	for _, a := range actions {
		if a.Kind == KindPull { // it does not run yet
			pulling = append(pulling, a.Name)
		}
	}
	switch {
	case len(failing) > 0:
		return api.NewCondition(api.CondImagesReady, api.StatusFalse, api.ReasonPullBackoff, andAlso(strings.Join(failing, "; "), s.w.unusedPullSecrets()))
	case len(pulling) > 0:
		return api.NewCondition(api.CondImagesReady, api.StatusFalse, api.ReasonPulling, strings.Join(pulling, "; "))
	}
	for _, svc := range s.w.Spec.GetServices() {
		ref := svc.GetImage()
		if present, looked := s.h.Images[ref]; looked && !present && s.w.missingPullSecret(ref) != "" {
			return api.NewCondition(api.CondImagesReady, api.StatusFalse, api.ReasonPullSecretMissing, "image "+ref+": "+s.w.missingPullSecret(ref))
		}
	}
	if s.w.Moved != "" {
		return api.NewCondition(api.CondImagesReady, api.StatusTrue, api.ReasonDigestGone, s.w.Moved)
	}
	if unused := s.w.unusedPullSecrets(); unused != "" {
		return api.NewCondition(api.CondImagesReady, api.StatusTrue, api.ReasonPullSecretUnused, "every image is on the node; "+unused)
	}
	return api.NewCondition(api.CondImagesReady, api.StatusTrue, api.ReasonPresent, "every image is on the node")
}

func andAlso(message, more string) string {
	if more == "" {
		return message
	}
	return message + "; " + more
}

func progressText(p engine.Progress) string {
	if p.Layers == 0 {
		return ""
	}
	const mib = 1 << 20
	return fmt.Sprintf(": %d of %d layers, %.1f of %.1f MiB", p.Ready, p.Layers, float64(p.Done)/mib, float64(p.Total)/mib)
}

// isUp reports whether a service is up at this generation and epoch.
func (s *progress) isUp(svc *carav1.Service) bool {
	c := s.container(svc.GetName())
	switch {
	case c == nil:
		return s.completion(svc) != nil
	case s.outdated(svc, c) != "" || s.wrongLimits(svc, c):
		return false
	}
	if old := s.previous(svc); old != nil && (startFirst(svc) || s.h.Memory.Update != nil || up(*old)) {
		return false
	}
	return s.works(svc, c, false)
}

func (s *report) serviceStatus(svc *carav1.Service, actions []Action) *carav1.ServiceStatus {
	out := &carav1.ServiceStatus{
		Name: svc.GetName(), Image: s.w.ImageOf(svc), State: api.ServiceWaiting,
		Restarts: int32(s.h.Memory.Restarts[svc.GetName()].Total),
	}
	c := s.serving(svc)
	if c == nil {
		s.withoutContainer(out, svc)
		return out
	}
	out.ContainerId, out.SpecHash, out.ImageDigest = c.ID, c.Labels[api.LabelSpecHash], s.h.Digests[c.ImageID]
	asWanted := s.outdated(svc, c) == ""
	if !asWanted {
		out.Image = cmp.Or(c.Image, out.Image)
	}
	if asWanted && !s.wrongLimits(svc, c) {
		out.SpecHash = s.w.Hashes[svc.GetName()] // its limits may have changed since it was created
	}
	if started := cmp.Or(c.ReportedStart, c.StartedAt); !started.IsZero() {
		out.StartedAt = timestamppb.New(started)
	}
	switch {
	case c.State == engine.StateRunning:
		out.State = api.ServiceRunning
		if health, probed := s.h.Health[c.ID]; probed || asWanted && s.check(svc, c) != nil {
			out.Health, out.Message = cmp.Or(health.State, api.HealthStarting), text.Clip(health.Message, MaxMessage)
		}
	case c.State == engine.StatePaused:
		out.State, out.Message = api.ServiceStopped, "somebody paused it"
	case c.StartedAt.IsZero():
		out.State = api.ServiceCreated
	default:
		out.State, out.ExitCode = s.exited(svc, c, actions), &c.ExitCode
	}
	return out
}

// withoutContainer describes a service that has no container.
func (s *report) withoutContainer(out *carav1.ServiceStatus, svc *carav1.Service) {
	if s.h.Memory.Pulls[svc.GetImage()].Running {
		out.State = api.ServicePulling
	}
	if done := s.completion(svc); done != nil {
		out.State, out.ExitCode, out.SpecHash = api.ServiceCompleted, new(int32), s.w.Hashes[svc.GetName()]
		out.ContainerId, out.ImageDigest, out.StartedAt = done.ContainerID, done.ImageDigest, timestamppb.New(done.StartedAt)
	}
}

// exited returns the state of a service whose container has exited.
func (s *report) exited(svc *carav1.Service, c *engine.Container, actions []Action) string {
	switch {
	case s.done(svc, c):
		return api.ServiceCompleted
	case slices.ContainsFunc(actions, func(a Action) bool {
		return a.Service == svc.GetName() && (a.Kind == KindWait || a.Kind == KindRestartContainer)
	}):
		return api.ServiceRestarting
	}
	return api.ServiceStopped
}
