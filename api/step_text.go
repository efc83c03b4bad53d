package api

import (
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
