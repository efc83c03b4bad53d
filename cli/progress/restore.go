package progress

import (
	"fmt"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
