package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/progress"
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
	c := o.projects()
	if o.cancel {
		return o.cancelMove(ctx, c, "stays on its node: the move is cancelled")
	}
	p, err := o.request(ctx, c)
	if err != nil {
		return err
	}
	if o.wait {
		return o.followMove(ctx, o.timeout, progress.NewMove(o.name, o.to, p.GetStatus().GetMove().GetId()))
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
func (o *named) followMove(ctx context.Context, timeout time.Duration, m *progress.Move) error {
	live := term.NewLive(o.Err)
	err := o.untilEnded(ctx, timeout, followed{
		watch: func(ctx context.Context) error { return o.watchMove(ctx, m, live) }, remains: m.Remains, lost: m.Lost,
	})
	if err != nil {
		return err
	}
	if m.Failed == nil {
		o.done(m.Success)
	}
	return m.Failed
}

// watchMove shows the progress until the move or the watch ends. A terminal shows one line that is redrawn, other outputs get
// lines.
func (o *named) watchMove(ctx context.Context, m *progress.Move, live *term.Live) error {
	stream, err := o.projects().WatchProjects(ctx, &carav1.WatchProjectsRequest{Name: o.name})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		line := m.Take(e, o.now())
		switch {
		case m.Ended:
			return nil
		case live != nil && m.Step != "":
			live.Draw([][]term.Cell{{term.Text("project/" + o.name), term.Text(m.Step), term.Text(m.Message)}})
		case line != "":
			fmt.Fprintln(o.Err, line)
		}
	}
}
