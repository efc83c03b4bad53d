package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type moveOptions struct {
	named
	to      string
	wait    bool
	cancel  bool
	timeout time.Duration
}

func newMove(a *app) *cobra.Command {
	o := &moveOptions{named: aboutProject(a)}
	cmd := o.one(&cobra.Command{
		Use: "move PROJECT --to NODE", Short: "Move a project and its data to another node",
		Long: "Move a project and the data of its Managed volumes to another node. The project runs while its data is copied. It is\n" +
			"stopped only while the last changes are copied and the copy is verified, and then starts on the new node. The old\n" +
			"data is kept on the old node until you delete it: caractrl get volumes shows it as Retained.\n\n" +
			"If the move fails or is cancelled, the project continues on its old node. The server does the work: when this command\n" +
			"ends before the move does, the move continues. The same command with --wait shows its progress again.\n\n" +
			"Exit codes with --wait: 0 the project runs on the new node, 3 the move or the project failed, 4 --timeout was over,\n" +
			"1 anything else.",
		Example: "  caractrl move shop --to n2 --wait\n  caractrl move shop --cancel",
	}, o)
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "node that the project moves to")
	f.BoolVar(&o.wait, "wait", false, "wait until the project runs on the new node")
	f.BoolVar(&o.cancel, "cancel", false, "end the move: the project continues on its old node")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 is as long as it takes")
	offer(cmd, "to", completion{a}.flag(kind.Node()))
	return cmd
}

func (o *moveOptions) parse(args []string) error {
	switch {
	case o.timeout < 0:
		return errors.New("--timeout must not be negative; see caractrl move --help")
	case o.cancel && (o.to != "" || o.wait):
		return errors.New("--cancel ends a move: leave out --to and --wait; see caractrl move --help")
	case !o.cancel && o.to == "":
		return errors.New("name the new node (--to NODE), or end a move (--cancel); see caractrl move --help")
	}
	o.to = kind.Bare(kind.Node(), o.to)
	return o.named.parse(args)
}

func (o *moveOptions) run(ctx context.Context) error {
	if err := o.nameCluster(); err != nil {
		return err
	}
	conn, err := o.dial()
	if err != nil {
		return err
	}
	c := carav1.NewProjectServiceClient(conn)
	if o.cancel {
		return o.cancelMove(ctx, c, "stays on its node: the move is cancelled")
	}
	p, err := o.request(ctx, c)
	if err != nil {
		return err
	}
	if o.wait {
		return o.followMove(ctx, conn, o.timeout, newMoveProgress(o.name, o.to, p.GetStatus().GetMove().GetId()))
	}
	o.done(fmt.Sprintf("moves to %s; caractrl move %s --to %s --wait shows the progress", o.to, o.name, o.to))
	return nil
}

// request requests the move. With --wait, it is not an error if the project is moving to that node already.
func (o *moveOptions) request(ctx context.Context, c carav1.ProjectServiceClient) (*carav1.Project, error) {
	p, err := c.MoveProject(ctx, &carav1.MoveProjectRequest{Name: o.name, To: o.to})
	if !o.wait || api.Code(err) != codes.FailedPrecondition {
		return p, err
	}
	now, getErr := c.GetProject(ctx, kind.ByName(o.name))
	if getErr != nil || now.GetStatus().GetMove().GetTo() != o.to {
		return nil, err
	}
	return now, nil
}

// cancelMove ends the move or the restore of the project.
func (o *named) cancelMove(ctx context.Context, c carav1.ProjectServiceClient, done string) error {
	if _, err := c.CancelMove(ctx, kind.ByName(o.name)); err != nil {
		return err
	}
	o.done(done)
	return nil
}

// followMove shows the progress of a move or a restore until its end. If the connection to the server is lost, it waits for
// the server, which then continues the move.
func (o *named) followMove(ctx context.Context, conn grpc.ClientConnInterface, timeout time.Duration, m *moveProgress) error {
	live := term.NewLive(o.Err)
	err := o.untilEnded(ctx, timeout, followed{
		watch: func(ctx context.Context) error { return o.watchMove(ctx, conn, m, live) }, remains: m.remains, lost: m.lost,
	})
	if err != nil {
		return err
	}
	if m.failed == nil {
		o.done(m.success)
	}
	return m.failed
}

// watchMove shows the progress until the move or the watch ends. A terminal shows one line that is redrawn, other outputs get
// lines.
func (o *named) watchMove(ctx context.Context, conn grpc.ClientConnInterface, m *moveProgress, live *term.Live) error {
	stream, err := carav1.NewProjectServiceClient(conn).WatchProjects(ctx, &carav1.WatchProjectsRequest{Name: o.name})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		line := m.take(e, o.now())
		switch {
		case m.ended:
			return nil
		case live != nil && m.step != "":
			live.Draw([][]term.Cell{{term.Text("project/" + o.name), term.Text(m.step), term.Text(m.message)}})
		case line != "":
			fmt.Fprintln(o.Err, line)
		}
	}
}

// moveProgress holds what is known about a move or a restore. It decides what to show and does no I/O.
type moveProgress struct {
	project, to, id string
	decide          func(*carav1.Project) // judge or judgeRestore
	success         string                // what a successful end means
	still           func() string         // that it continues after this command
	again           string                // how to see and end it then

	step, message string // as they are now
	shown         string // the step of the last line
	shownAt       time.Time
	seen          bool // the project exists
	away          bool // the server was lost, and that was shown
	ended         bool
	failed        error // how the move failed; nil if the project runs on its new node
}

func newMoveProgress(project, to, id string) *moveProgress {
	m := &moveProgress{project: project, to: to, id: id, success: "runs on " + to}
	m.decide = m.judge
	m.still = func() string { return fmt.Sprintf("project %s still moves to node %s", project, to) }
	m.again = fmt.Sprintf("caractrl move %s --to %s --wait shows it again, caractrl move %s --cancel ends it", project, to, project)
	return m
}

// betweenLines is how long a step is not shown again on an output that is not a terminal.
const betweenLines = 10 * time.Second

// take reads one event of the watch and returns the line to show, if there is a new one.
func (m *moveProgress) take(e *carav1.ProjectEvent, now time.Time) string {
	p := e.GetObject()
	switch {
	case e.GetType() == api.WatchBookmark && !m.seen, e.GetType() == api.WatchDeleted:
		m.end(1, fmt.Sprintf("project %q was deleted meanwhile", m.project))
		return ""
	case e.GetType() == api.WatchBookmark:
		return ""
	}
	m.seen, m.away = true, false
	m.decide(p)
	if m.ended || m.step == m.shown && now.Sub(m.shownAt) < betweenLines {
		return ""
	}
	m.shown, m.shownAt = m.step, now
	line := fmt.Sprintf("project/%s %s", term.Line(m.project), term.Line(m.step))
	if m.message != "" {
		line += ": " + term.Line(m.message)
	}
	return line
}

// judge decides from the project's state how far the move is.
func (m *moveProgress) judge(p *carav1.Project) {
	st := p.GetStatus()
	moving := api.FindCondition(st.GetConditions(), api.CondMoving)
	switch {
	case st.GetMove() != nil && st.GetMove().GetId() != m.id:
		m.end(term.ExitFailed, fmt.Sprintf("project %q has another move, to node %s: the one to node %s has ended", m.project, st.GetMove().GetTo(), m.to))
	case st.GetMove() != nil:
		m.step, m.message = st.GetMove().GetStep(), moving.GetMessage()
	case st.GetNodeRef() != m.to:
		m.end(term.ExitFailed, fmt.Sprintf("project %q is not moved: %s", m.project, moving.GetMessage()))
	default:
		m.judgeStart(p, fmt.Sprintf("project %q moved to node %s and failed there", m.project, m.to))
	}
}

// judgeStart decides how far the start of the project is after its move or its restore. failed says what it means if the project
// has failed.
func (m *moveProgress) judgeStart(p *carav1.Project, failed string) {
	st := p.GetStatus()
	reason, message := api.Telling(p)
	switch {
	case st.GetPhase() == api.PhaseFailed:
		m.end(term.ExitFailed, fmt.Sprintf("%s: %s: %s", failed, reason, message))
	case st.GetPhase() == api.PhaseRunning && st.GetObservedGeneration() >= p.GetMetadata().GetGeneration():
		m.ended = true
	default:
		m.step, m.message = st.GetPhase(), message
	}
}

// lost reports whether the loss of the server is new.
func (m *moveProgress) lost() bool {
	before := m.away
	m.away = true
	return !before
}

func (m *moveProgress) end(code int, message string) {
	m.ended, m.failed = true, term.Exit{Code: code, Message: message}
}

// remains describes a move that continues after this command ends.
func (m *moveProgress) remains() string {
	text := m.still()
	if m.step != "" {
		text += fmt.Sprintf(" (%s: %s)", m.step, term.Line(m.message))
	}
	return text + "\n       " + m.again
}
