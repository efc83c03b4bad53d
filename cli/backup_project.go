package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type backupProjectOptions struct {
	named
	wait    bool
	timeout time.Duration
}

func newBackupProject(a *app) *cobra.Command {
	o := &backupProjectOptions{named: aboutProject(a)}
	cmd := o.one(&cobra.Command{
		Use: "project PROJECT", Short: "Back up the data of a project now",
		Long: "Back up the Managed volumes of a project now, as its manifest says in spec.backup. The node makes the backup; if\n" +
			"one is running, another one follows it. caractrl get backups shows the results.\n\n" +
			"Exit codes with --wait: 0 the backup succeeded, 3 it failed, 4 --timeout was over, 1 anything else.",
		Example: "  caractrl backup project shop --wait",
	}, o)
	f := cmd.Flags()
	f.BoolVar(&o.wait, "wait", false, "wait for the end of the backup")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 is as long as it takes")
	return cmd
}

func (o *backupProjectOptions) parse(args []string) error {
	if o.timeout < 0 {
		return errors.New("--timeout must not be negative; see caractrl backup project --help")
	}
	return o.named.parse(args)
}

func (o *backupProjectOptions) run(ctx context.Context) error {
	c, err := o.projects()
	if err != nil {
		return err
	}
	p, err := c.BackupProject(ctx, &carav1.BackupProjectRequest{Name: o.name})
	if err != nil {
		return err
	}
	if !o.wait {
		o.done("is backed up by node " + p.GetStatus().GetNodeRef() + "; caractrl get backups " + o.name + " shows the result")
		return nil
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	return o.follow(ctx, c, p)
}

// follow waits until the node has handled the request.
func (o *backupProjectOptions) follow(ctx context.Context, c carav1.ProjectServiceClient, asked *carav1.Project) error {
	stream, err := c.WatchProjects(ctx, &carav1.WatchProjectsRequest{Name: o.name})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		switch {
		case timedOut(err):
			return term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("project %q is not backed up after %s; caractrl describe project %s tells more", o.name, o.timeout, o.name)}
		case err != nil:
			return err
		}
		if done, err := o.verdict(asked, e); done {
			return err
		}
	}
}

// verdict reports whether the requested backup has ended, and how.
func (o *backupProjectOptions) verdict(asked *carav1.Project, e *carav1.ProjectEvent) (done bool, err error) {
	p := e.GetObject()
	if p.GetMetadata().GetName() != o.name { // a bookmark
		return false, nil
	}
	if e.GetType() == api.WatchDeleted || p.GetMetadata().GetUid() != asked.GetMetadata().GetUid() {
		return true, term.Exit{Code: term.ExitFailed, Message: fmt.Sprintf("project %q is gone", o.name)}
	}
	s := p.GetStatus().GetBackup()
	switch token := p.GetStatus().GetBackupToken(); {
	case s.GetToken() != token || s.GetState() == api.BackupRunning:
		return false, nil
	case s.GetState() == api.BackupFailed:
		return true, term.Exit{Code: term.ExitFailed, Message: fmt.Sprintf("the backup of project %q failed: %s", o.name, s.GetMessage())}
	}
	fmt.Fprintf(o.Out, "%s is backed up: %s\n", kind.Ref{Kind: o.kind, Name: o.name}, term.Line(kind.SnapshotsText(s.GetSnapshots())))
	return true, nil
}
