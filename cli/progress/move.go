package progress

import (
	"fmt"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Move holds what is known about a move or a restore. It decides what to show and does no I/O.
type Move struct {
	project, to, id string
	decide          func(*carav1.Project) // judge or judgeRestore
	Success         string                // what a successful end means
	still           func() string         // that it continues after this command
	again           string                // how to see and end it then

	Step, Message string // as they are now
	shown, told   string // the step and the message of the last line
	shownAt       time.Time
	seen          bool // the project exists
	away          bool // the server was lost, and that was shown
	Ended         bool
	Failed        error // how the move failed; nil if the project runs on its new node
}

// NewMove follows a move with this id to a node.
func NewMove(project, to, id string) *Move {
	m := &Move{project: project, to: to, id: id, Success: "runs on " + to}
	m.decide = m.judge
	m.still = func() string { return fmt.Sprintf("project %s still moves to node %s", project, to) }
	m.again = fmt.Sprintf("caractrl move %s --to %s --wait shows it again, caractrl move %s --cancel ends it", project, to, project)
	return m
}

// BetweenLines is how long a step is not shown again on an output that is not a terminal.
const BetweenLines = 10 * time.Second

// Take reads one event of the watch and returns the line to show, if there is a new one.
func (m *Move) Take(e *carav1.ProjectEvent, now time.Time) string {
	p := e.GetObject()
	switch {
	case e.GetType() == api.WatchBookmark && !m.seen, e.GetType() == api.WatchDeleted:
		m.end(1, fmt.Sprintf("project %q was deleted meanwhile", m.project))
		return ""
	case e.GetType() == api.WatchBookmark: // these come regularly: the time to show a message that came too soon after a line
		if m.Message == m.told {
			return ""
		}
	default:
		m.seen, m.away = true, false
		m.decide(p)
	}
	if m.Ended || m.Step == m.shown && now.Sub(m.shownAt) < BetweenLines {
		return ""
	}
	m.shown, m.told, m.shownAt = m.Step, m.Message, now
	line := fmt.Sprintf("project/%s %s", term.Line(m.project), term.Line(m.Step))
	if m.Message != "" {
		line += ": " + term.Line(m.Message)
	}
	return line
}

// judge decides from the project's state how far the move is.
func (m *Move) judge(p *carav1.Project) {
	st := p.GetStatus()
	moving := api.FindCondition(st.GetConditions(), api.CondMoving)
	switch {
	case st.GetMove() != nil && st.GetMove().GetId() != m.id:
		m.end(term.ExitFailed, fmt.Sprintf("project %q has another move, to node %s: the one to node %s has ended", m.project, st.GetMove().GetTo(), m.to))
	case st.GetMove() != nil:
		m.Step, m.Message = st.GetMove().GetStep(), moving.GetMessage()
	case st.GetNodeRef() != m.to:
		m.end(term.ExitFailed, fmt.Sprintf("project %q is not moved: %s", m.project, moving.GetMessage()))
	default:
		m.judgeStart(p, fmt.Sprintf("project %q moved to node %s and failed there", m.project, m.to))
	}
}

// judgeStart decides how far the start of the project is after its move or its restore. failed says what it means if the project
// has failed.
func (m *Move) judgeStart(p *carav1.Project, failed string) {
	st := p.GetStatus()
	reason, message := api.Telling(p)
	switch {
	case st.GetPhase() == api.PhaseFailed:
		m.end(term.ExitFailed, fmt.Sprintf("%s: %s: %s", failed, reason, message))
	case st.GetPhase() == api.PhaseRunning && st.GetObservedGeneration() >= p.GetMetadata().GetGeneration():
		m.Ended = true
	default:
		m.Step, m.Message = st.GetPhase(), message
	}
}

// Lost reports whether the loss of the server is new.
func (m *Move) Lost() bool {
	before := m.away
	m.away = true
	return !before
}

func (m *Move) end(code int, message string) {
	m.Ended, m.Failed = true, term.Exit{Code: code, Message: message}
}

// Remains describes a move that continues after this command ends.
func (m *Move) Remains() string {
	text := m.still()
	if m.Step != "" {
		text += fmt.Sprintf(" (%s: %s)", m.Step, term.Line(m.Message))
	}
	return text + "\n       " + m.again
}

// NewRestore follows the restore that a project has now.
func NewRestore(project, as string, p *carav1.Project) *Move {
	m := &Move{project: project, id: p.GetStatus().GetMove().GetId()}
	m.decide = func(p *carav1.Project) { m.judgeRestore(p, as) }
	m.Success = "runs on its restored data"
	if as != "" {
		m.Success = "is restored: caractrl get volumes shows the volumes of " + as
	}
	m.still = func() string {
		return fmt.Sprintf("project %s is still being restored", project)
	}
	m.again = fmt.Sprintf("caractrl get project %s --watch shows it, caractrl restore %s --cancel ends it", project, project)
	return m
}

// judgeRestore decides from the project's state how far the restore is.
func (m *Move) judgeRestore(p *carav1.Project, as string) {
	st := p.GetStatus()
	c := api.FindCondition(st.GetConditions(), api.CondRestoring)
	switch {
	case st.GetMove() != nil && st.GetMove().GetId() != m.id:
		m.end(term.ExitFailed, fmt.Sprintf("project %q is moved or restored again: this restore has ended", m.project))
	case st.GetMove() != nil:
		m.Step, m.Message = st.GetMove().GetStep(), c.GetMessage()
	case c.GetReason() != api.ReasonRestored:
		m.end(term.ExitFailed, fmt.Sprintf("project %q is not restored: %s", m.project, term.Line(c.GetMessage())))
	case as != "":
		m.Ended = true
	default:
		m.judgeStart(p, fmt.Sprintf("the data of project %q is restored, and the project failed", m.project))
	}
}
