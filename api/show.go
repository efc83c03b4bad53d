package api

import (
	"strconv"
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

// Place formats a place in a file as editors do: `deploy/web.yaml:3:7`. A line or column of 0 is left out.
func Place(file string, line, column int32) string {
	for _, n := range []int32{line, column} {
		if n == 0 {
			break
		}
		file += ":" + strconv.Itoa(int(n))
	}
	return file
}

// StepText describes what a step of a plan does to its project, or why it does nothing. It continues a sentence that begins
// with the project.
func StepText(s *carav1.PlanStep, plan *carav1.SourcePlan) string {
	owner := OrNobody(s.GetOwner())
	switch s.GetAction() {
	case PlanCreate:
		return "would be created" + lastAttempt(s)
	case PlanUpdate:
		return "would be configured" + lastAttempt(s)
	case PlanAdopt:
		return "would be adopted, it belongs to " + owner + lastAttempt(s)
	case PlanHandOver:
		return "would be taken over from " + owner + lastAttempt(s)
	case PlanDelete:
		return "would be pruned"
	}
	switch s.GetReason() {
	case ReasonDeleting:
		return "is being deleted: git would create it again"
	case ClaimOverridden:
		return "is " + s.GetMessage()
	case ClaimPruneBlocked:
		if PruneIsOff(plan) {
			return "is kept, it left the source: " + plan.GetPruneBlocked()[0]
		}
		return "would be pruned, and is not: the prune is blocked"
	case ReasonUnclaimed:
		return "is kept: " + s.GetMessage()
	case ReasonLeftToOther, ReasonInventory:
		return "is kept, it left the source: " + s.GetMessage()
	}
	return "stays as it is: " + s.GetMessage()
}

// PruneIsOff reports whether nothing is pruned only because the source disables pruning.
func PruneIsOff(plan *carav1.SourcePlan) bool {
	return len(plan.GetPruneBlocked()) == 1 && plan.GetPruneBlocked()[0] == PruneOff
}

// lastAttempt describes how the last attempt to apply a project failed; empty if it did not fail.
func lastAttempt(s *carav1.PlanStep) string {
	switch state := s.GetClaimState(); state {
	case ClaimRefused, ClaimNotAllowed, ClaimStalled:
		return ", and is not (" + state + "): " + s.GetClaimMessage()
	}
	return ""
}
