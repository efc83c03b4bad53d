package api

import (
	"errors"
	"fmt"
	"slices"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Phase is the phase of a project.
type Phase string

// Phases of a project.
const (
	PhasePending     = "Pending"
	PhaseScheduled   = "Scheduled"
	PhaseRunning     = "Running"
	PhaseFailed      = "Failed"
	PhaseTerminating = "Terminating"
	PhaseTerminated  = "Terminated"
)

// ErrMove is wrapped by the errors of CheckMove.
var ErrMove = errors.New("phase move not allowed")

// Move is one row of the phase table. An empty From means that the project is new, an empty To that its record is removed.
type Move struct {
	From, To Phase
	By       Role
	When     string
}

// Moves returns the phase table with every allowed move. The result is a copy.
func Moves() [17]Move {
	return [...]Move{
		{"", PhasePending, RoleServer, "accepted"},
		{PhasePending, PhaseScheduled, RoleScheduler, "a node was chosen"},
		{PhaseScheduled, PhaseRunning, RoleAgent, "every service is up"},
		{PhaseScheduled, PhaseFailed, RoleAgent, "a terminal error"},
		{PhaseRunning, PhaseFailed, RoleAgent, "a terminal error"},
		{PhaseRunning, PhaseScheduled, RoleServer, "the spec changed"},
		{PhaseFailed, PhasePending, RoleServer, "the spec changed, or an operator asked for a retry"},
		{PhaseScheduled, PhasePending, RoleScheduler, "its node is lost or draining"},
		{PhaseRunning, PhasePending, RoleScheduler, "its node is lost or draining"},
		{PhasePending, PhaseTerminating, RoleServer, "deletion"},
		{PhaseScheduled, PhaseTerminating, RoleServer, "deletion"},
		{PhaseRunning, PhaseTerminating, RoleServer, "deletion"},
		{PhaseFailed, PhaseTerminating, RoleServer, "deletion"},
		{PhaseTerminating, PhaseTerminated, RoleAgent, "containers, network and volumes are gone"},
		{PhaseTerminating, PhaseTerminated, RoleScheduler, "its node has been lost for over 10 minutes"},
		{PhaseTerminated, "", RoleGC, "the record goes, a tombstone stays"},
		{PhasePending, "", RoleServer, "deletion of a project that never had a node"},
	}
}

// Phases returns all phases in the order in which a project passes through them.
func Phases() []Phase {
	return []Phase{PhasePending, PhaseScheduled, PhaseRunning, PhaseFailed, PhaseTerminating, PhaseTerminated}
}

// KnownPhase reports whether phase is one of Phases.
func KnownPhase(phase Phase) bool { return slices.Contains(Phases(), phase) }

// CheckMove returns nil if the phase table lists the move, else an error that wraps ErrMove. An unchanged phase is not a
// move and always allowed.
func CheckMove(from, to Phase, by Role) error {
	if from == to && KnownPhase(from) {
		return nil
	}
	var others []string
	for _, m := range Moves() {
		if m.From != from || m.To != to {
			continue
		}
		if m.By == by {
			return nil
		}
		others = append(others, string(m.By))
	}
	if len(others) > 0 {
		return fmt.Errorf("%w: %s to %s is for the %v to do, not for the %s", ErrMove, phaseWord(from), phaseWord(to), others, by)
	}
	return fmt.Errorf("%w: there is no move from %s to %s", ErrMove, phaseWord(from), phaseWord(to))
}

func phaseWord(phase Phase) string {
	if phase == "" {
		return "no record"
	}
	return string(phase)
}

// GoingAway reports whether a project is being deleted: it accepts no change, and its name is free after its record is
// removed.
func GoingAway(p *carav1.Project) bool {
	phase := p.GetStatus().GetPhase()
	return p.GetMetadata().GetDeletionTimestamp() != nil || phase == PhaseTerminating || phase == PhaseTerminated
}
