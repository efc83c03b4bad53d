package rules

import (
	"cmp"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// MayReport is the fence. It accepts reports only from the node that the project is assigned to, only for the current
// assignment, and not older than the previous report. A rejected agent is out of date and gets the new state on its stream.
func MayReport(actor identity.Actor, p *carav1.Project, req *carav1.UpdateProjectStatusRequest) error {
	st, meta := p.GetStatus(), p.GetMetadata()
	stale := func(title, format string, args ...any) error {
		return api.Errorf(codes.Aborted, title, format, args...)
	}
	switch {
	case req.GetUid() != meta.GetUid():
		return stale(api.TitleConflict, "project %q has uid %s, the report is about %s", meta.GetName(), meta.GetUid(), req.GetUid())
	case req.GetEpoch() != st.GetEpoch():
		return stale(api.TitleStaleEpoch, "project %q is in epoch %d on %s, the report is from epoch %d",
			meta.GetName(), st.GetEpoch(), api.OrNobody(st.GetNodeRef()), req.GetEpoch())
	case st.GetNodeRef() == "":
		return stale(api.TitleStaleEpoch, "project %q is assigned to no node", meta.GetName())
	case actor.Node() != st.GetNodeRef():
		return api.Forbidden("project %q is assigned to node %s: %s may not report on it",
			meta.GetName(), st.GetNodeRef(), actor.Name)
	case req.GetObservedGeneration() > meta.GetGeneration():
		return api.Invalid("the report", api.Field("observedGeneration", "is %d; project %q is at generation %d",
			req.GetObservedGeneration(), meta.GetName(), meta.GetGeneration()))
	case req.GetObservedGeneration() < st.GetObservedGeneration():
		return stale(api.TitleStaleGeneration, "project %q was reported at generation %d already, this report is from %d",
			meta.GetName(), st.GetObservedGeneration(), req.GetObservedGeneration())
	}
	if phase := req.GetPhase(); (phase == api.PhaseRunning || phase == api.PhaseFailed) && req.GetObservedGeneration() != meta.GetGeneration() {
		return stale(api.TitleStaleGeneration, "project %q is at generation %d: what %s is generation %d",
			meta.GetName(), meta.GetGeneration(), phase, req.GetObservedGeneration())
	}
	return nil
}

// ReportIsAhead reports whether a report is about an assignment that is newer than the project in the copy of this server: another server
// may have sent it. p is nil if the copy has no such project.
func ReportIsAhead(p *carav1.Project, req *carav1.UpdateProjectStatusRequest) bool {
	return req.GetUid() != p.GetMetadata().GetUid() || req.GetEpoch() > p.GetStatus().GetEpoch() ||
		req.GetObservedGeneration() > p.GetMetadata().GetGeneration()
}

// warnings returns the conditions that exist while each report has them, and that begin with an event.
func warnings() []string {
	return []string{api.CondSecretChanged, api.CondUnmountedVolume, api.CondBackupStale, api.CondBackupBlocked}
}

// ApplyReport writes the agent's part of the status. The reason of a phase change is in the report's condition `Phase`, or
// else in its `Ready`.
func ApplyReport(t *state.Tx, p *carav1.Project, req *carav1.UpdateProjectStatusRequest) error {
	why := &carav1.Condition{}
	for _, c := range req.GetConditions() {
		switch c.GetType() {
		case api.CondPhase:
			why = c
		case api.CondReady, api.CondImagesReady, api.CondSecretChanged, api.CondUnmountedVolume, api.CondBackupStale, api.CondBackupBlocked:
			mine := proto.CloneOf(c)
			mine.ObservedGeneration = req.GetObservedGeneration()
			if c.GetReason() == api.ReasonUpdateFailed && !api.UpdateFailed(p) {
				RecordEvent(t, RefTo(p), api.EventWarning, api.Reason(c.GetReason()), c.GetMessage())
			}
			if slices.Contains(warnings(), c.GetType()) && !api.IsTrue(p.GetStatus().GetConditions(), c.GetType()) {
				RecordEvent(t, RefTo(p), api.EventWarning, api.Reason(c.GetReason()), c.GetMessage())
			}
			p.Status.Conditions, _ = api.SetCondition(p.GetStatus().GetConditions(), mine, t.Now)
			if why.GetType() == "" && c.GetType() == api.CondReady {
				why = c
			}
		case api.CondMoving:
			showProgress(t, p, c)
		default:
			return api.Invalid("the report", api.Field("conditions", "has %q; an agent sets Ready, ImagesReady, SecretChanged, UnmountedVolume, BackupStale, BackupBlocked, Moving and, for a change of the phase, Phase", c.GetType()))
		}
	}
	for _, warning := range warnings() {
		if api.FindCondition(req.GetConditions(), warning) == nil {
			p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), warning)
		}
	}
	p.Status.ObservedGeneration = req.GetObservedGeneration()
	reportBackup(p, req.GetBackup())
	before := p.GetStatus().GetServices()
	p.Status.Services = proto.CloneOf(req).GetServices()
	keepDigests(before, p.GetStatus().GetServices())
	if req.GetPhase() == "" {
		return nil
	}
	reason, message := cmp.Or(why.GetReason(), req.GetPhase()), why.GetMessage()
	if message == "" {
		message = t.Actor.Name + " says that it is " + req.GetPhase()
	}
	return MovePhase(t, p, api.Phase(req.GetPhase()), api.RoleAgent, api.Reason(reason), message)
}
