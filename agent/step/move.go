package step

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// How Step handles a move of the project with its data to another node. While the data is copied for the first time, the
// project runs as usual. In the step Switching it is stopped, so that the copy can become equal. Invariants:
//
//   - While Switching, no container runs or is started, until the switch has failed on this node (Interrupted or Failed).
//     The containers are stopped and not removed, so that they can continue.
//   - Before this node reports Verified, the record on disk says so. From then on the new node may start the project at any
//     time, so this node starts nothing: not after a lost answer, not after a restart of the agent, and not with an
//     assignment from disk. Only a newer assignment of the server that does not switch ends that. See Record.holds.
//   - A container that was stopped for a move is started again as if it had not ended by itself: its exit is neither a
//     failure nor a completion.

// Moving is what the agent knows of the project's move, in addition to the assignment.
type Moving struct {
	// Result of the current step, for the server (api.MoveCopied and so on), or empty. Message explains a failure.
	Result, Message string
	// Progress is what is being done, for people.
	Progress string
}

// Verified is a move whose copy this node has found equal.
type Verified struct {
	ID       string `json:"id"`
	Attempts int32  `json:"attempts,omitempty"`
}

// switching reports whether the project must be stopped for its move. An assignment from disk stops nothing, because the
// server may have ended the move, and only the server can start the project again.
func (w *Want) switching() bool {
	return w.Move.GetStep() == api.MoveSwitching && w.HaveSecrets
}

// holds reports whether the project must not be started, because another node may have started it with the copy of its data.
// The server goes back from Switching to Copying only with another number of attempts, so an older assignment ends nothing.
func (r Record) holds(w *Want) bool {
	v := r.Verified
	switch {
	case v == nil || !r.of(w):
		return false
	case !w.HaveSecrets:
		return true // from disk
	case w.Move.GetId() != v.ID:
		return false
	}
	return w.Move.GetAttempts() <= v.Attempts
}

// HoldsFor reports whether the record says that the copy of the current move is equal.
func (r Record) HoldsFor(w *Want) bool {
	return r.Verified != nil && r.of(w) && r.Verified.ID == w.Move.GetId() && r.Verified.Attempts >= w.Move.GetAttempts()
}

// mustStand reports whether the project must not run now.
func (s *view) mustStand() bool {
	if s.h.Record.holds(s.w) {
		return true
	}
	return s.w.switching() && s.h.Moving.Result != api.MoveInterrupted && s.h.Moving.Result != api.MoveFailed
}

// stopForMove stops all running containers. Dependents stop first.
func (s *plan) stopForMove() {
	running := slices.DeleteFunc(slices.Clone(s.h.Containers), func(c engine.Container) bool { return !up(c) })
	for _, c := range s.reversed(running) {
		if !slices.ContainsFunc(running, func(d engine.Container) bool { return s.dependsOn(d, c) }) {
			stop := about(KindStopContainer, &c, "the project moves to "+s.w.moveTarget())
			stop.ForMove = true
			s.attempt(stop, "")
		}
	}
	if len(running) == 0 {
		s.wait("", s.now.Add(movePause), "the project is stopped while it moves to %s", s.w.moveTarget())
	}
}

// movePause is how often a report about a move is repeated, and how often its progress is reported.
const movePause = 2 * time.Second

// continueAfterMove starts the containers again that were stopped for a move, and reports whether there are any.
func (s *plan) continueAfterMove() bool {
	for _, c := range slices.Backward(s.reversed(s.h.Containers)) {
		at, attached := c.Networks[NetworkName(s.w.Project)]
		there := slices.ContainsFunc(s.h.Networks, func(n engine.Network) bool { return at.NetworkID == "" || n.ID == at.NetworkID })
		if !s.stoppedForMove(&c) || !attached || !there || s.w.Service(c.Labels[api.LabelService]) == nil {
			continue
		}
		start := about(KindRestartContainer, &c, "its project was stopped for a move and continues here")
		start.ForMove = true
		s.attempt(start, api.ReasonStartFailed)
	}
	return len(s.actions) > 0
}

// stoppedForMove reports whether a container's last run was ended for a move.
func (s *view) stoppedForMove(c *engine.Container) bool {
	run, ok := s.h.Record.StoppedForMove[c.ID]
	return ok && c.State == engine.StateExited && run.Equal(c.EngineStart())
}

// recordMove sets what must be remembered of a move.
func (r Record) recordMove(out *Record, w *Want, h *Have, actions []Action) {
	for id, run := range r.StoppedForMove {
		if c := h.Find(id); c.ID != "" && run.Equal(c.EngineStart()) {
			out.stopForMove(id, run)
		}
	}
	for _, a := range actions {
		if c := h.Find(a.ID); a.Kind == KindStopContainer && a.ForMove && c.ID != "" {
			out.stopForMove(a.ID, c.EngineStart())
		}
	}
	if r.of(w) && (r.holds(w) || r.HoldsFor(w)) {
		out.Verified = r.Verified
	}
	if w.switching() && h.Moving.Result == api.MoveVerified {
		out.Verified = &Verified{ID: w.Move.GetId(), Attempts: w.Move.GetAttempts()}
	}
}

func (r *Record) stopForMove(id string, run time.Time) {
	if r.StoppedForMove == nil {
		r.StoppedForMove = map[string]time.Time{}
	}
	r.StoppedForMove[id] = run
}

// sameMove reports whether two records say the same about a move.
func (r Record) sameMove(other Record) bool {
	if !maps.EqualFunc(r.StoppedForMove, other.StoppedForMove, time.Time.Equal) || (r.Verified == nil) != (other.Verified == nil) {
		return false
	}
	return r.Verified == nil || *r.Verified == *other.Verified
}

// knowsMove reports whether the record has what next says about a move.
func (r Record) knowsMove(next Record) bool {
	for id := range next.StoppedForMove {
		if _, ok := r.StoppedForMove[id]; !ok {
			return false
		}
	}
	return next.Verified == nil || r.Verified != nil && *r.Verified == *next.Verified
}

// MoveStopped reports whether the project is stopped for its move, so that the copy can become equal.
func MoveStopped(w *Want, h *Have) bool {
	s := &view{w: w, h: h}
	return w.switching() && s.mustStand() && !slices.ContainsFunc(h.Containers, up)
}

// setMove sets the move of an assignment, if this node must carry it out.
func (w *Want) setMove(p *carav1.Project) {
	m := p.GetStatus().GetMove()
	if m.GetFrom() == w.Node && (m.GetStep() == api.MoveCopying || m.GetStep() == api.MoveSwitching) {
		w.Move = m
	}
}

// reportMove adds the progress of the move to a report.
func (s *report) reportMove(r *carav1.UpdateProjectStatusRequest) {
	m := s.w.Move
	if m == nil || s.w.Remove {
		return
	}
	result, message := s.h.Moving.Result, text.Clip(s.h.Moving.Message, maxMoveMessage)
	if s.h.Record.HoldsFor(s.w) {
		result, message = api.MoveVerified, ""
	} else if result == api.MoveVerified {
		result = "" // the record does not say so yet
	}
	if result != "" {
		r.Move = &carav1.MoveReport{Id: m.GetId(), Result: result, Message: message}
	}
	reason := api.Reason(m.GetStep())
	r.Conditions = append(r.Conditions, api.NewCondition(api.CondMoving, api.StatusTrue, reason, s.moveText()))
}

// maxMoveMessage is the maximum length of the message of a MoveReport, from the API contract.
const maxMoveMessage = 4000

// moveText describes the state of the move for people.
func (s *report) moveText() string {
	m := s.w.Move
	var parts []string
	switch {
	case s.h.Record.HoldsFor(s.w):
		parts = append(parts, "the copy on node "+m.GetTo()+" is complete and verified; waiting for the server")
	case s.h.Moving.Progress != "":
		parts = append(parts, s.h.Moving.Progress)
	case m.GetStep() == api.MoveSwitching:
		parts = append(parts, "stopping the project to copy the last changes to node "+m.GetTo())
	default:
		parts = append(parts, "copying the project's data to node "+m.GetTo())
	}
	if s.h.Moving.Message != "" && !s.h.Record.HoldsFor(s.w) {
		parts = append(parts, s.h.Moving.Message)
	}
	if m.GetAttempts() > 0 && m.GetMessage() != "" {
		parts = append(parts, fmt.Sprintf("attempt %d, after: %s", m.GetAttempts()+1, m.GetMessage()))
	}
	return strings.Join(parts, "; ")
}

// MoveDue adds a time to look again while the agent must repeat its report about a move.
func MoveDue(w *Want, actions []Action, now time.Time) []Action {
	if w.Move == nil || w.Remove {
		return actions
	}
	return append(slices.Clone(actions), Action{Kind: KindWait, Until: now.Add(movePause), Reason: "the move to node " + w.Move.GetTo() + " is in progress"})
}

// moveTarget names the node that the project moves to. An assignment from disk may not say it.
func (w *Want) moveTarget() string {
	if w.Move.GetTo() == "" {
		return "another node"
	}
	return "node " + w.Move.GetTo()
}
