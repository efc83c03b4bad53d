package api

import (
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ServiceReady reports whether a service runs and is healthy, or has completed.
func ServiceReady(s *carav1.ServiceStatus) bool {
	return s.GetState() == ServiceCompleted || s.GetState() == ServiceRunning && (s.GetHealth() == "" || s.GetHealth() == HealthHealthy)
}

// ReadyServices counts the services of a project that are ready.
func ReadyServices(p *carav1.Project) (ready int) {
	for _, s := range p.GetStatus().GetServices() {
		if ServiceReady(s) {
			ready++
		}
	}
	return ready
}

// Healthy reports whether nothing of a Running project is missing.
func Healthy(p *carav1.Project) bool {
	return FindCondition(p.GetStatus().GetConditions(), CondReady).GetStatus() != StatusFalse && ReadyServices(p) >= len(p.GetSpec().GetServices())
}

// Expiry returns when a project will be deleted; nil for never.
func Expiry(p *carav1.Project) *timestamppb.Timestamp {
	if at := p.GetStatus().GetExpireAt(); at != nil {
		return at
	}
	return p.GetSpec().GetExpireAt()
}

// Telling returns the reason and the message that best explain a project's state.
func Telling(p *carav1.Project) (reason, message string) {
	st := p.GetStatus()
	var order []string
	switch st.GetPhase() {
	case PhasePending:
		order = []string{CondScheduled, CondPhase}
	case PhaseScheduled:
		order = []string{CondImagesReady, CondReady, CondPhase}
	case PhaseRunning:
		order = []string{CondReady}
	case PhaseFailed:
		order = []string{CondPhase, CondReady}
	case PhaseTerminating:
		order = []string{CondPhase}
	}
	ready := FindCondition(st.GetConditions(), CondReady)
	if UpdateFailed(p) && ready.GetObservedGeneration() >= p.GetMetadata().GetGeneration() {
		order = []string{CondReady}
	}
	for _, typ := range order {
		if c := FindCondition(st.GetConditions(), typ); c != nil && (c.Status != StatusTrue || typ == CondPhase) {
			reason, message = c.Reason, c.Message
			break
		}
	}
	for _, typ := range []string{CondMoving, CondRestoring, CondOverridden, CondExpiring} {
		if c := FindCondition(st.GetConditions(), typ); c.GetStatus() == StatusTrue {
			reason = strings.TrimPrefix(reason+","+typ, ",")
			message = strings.TrimPrefix(message+"; "+c.Message, "; ")
		}
	}
	return reason, message
}

// SourceProblem returns the condition of a source that shows a problem, or nil. A source that is being deleted or suspended
// has none.
func SourceProblem(s *carav1.Source) *carav1.Condition {
	if s.GetMetadata().GetDeletionTimestamp() != nil || s.GetSpec().GetSuspend() {
		return nil
	}
	conditions := s.GetStatus().GetConditions()
	for _, typ := range []string{CondFetchFailed, CondInvalidManifests, CondPruneBlocked, CondConflict, CondStalled} {
		if c := FindCondition(conditions, typ); c.GetStatus() == StatusTrue {
			return c
		}
	}
	if c := FindCondition(conditions, CondReady); c.GetStatus() == StatusFalse {
		return c
	}
	return nil
}

// RefText returns the ref that a git source follows: `branch main`.
func RefText(r *carav1.GitRef) string {
	switch {
	case r.GetBranch() != "":
		return "branch " + r.GetBranch()
	case r.GetTag() != "":
		return "tag " + r.GetTag()
	case r.GetSemver() != "":
		return "semver " + r.GetSemver()
	case r.GetCommit() != "":
		return "commit " + ShortRevision(r.GetCommit())
	}
	return "HEAD"
}

// NodeTroubled reports whether a node's condition shows a problem: Ready, EngineReady, IngressReachable and PortsReady if they
// are not True, pressure if it is.
func NodeTroubled(c *carav1.Condition) bool {
	switch c.GetType() {
	case CondReady, CondEngineReady, CondIngressReachable, CondPortsReady:
		return c.GetStatus() != StatusTrue
	case CondDiskPressure, CondMemoryPressure:
		return c.GetStatus() == StatusTrue
	}
	return false
}
