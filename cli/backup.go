package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type backupOptions struct {
	*app
	file string // - for standard output
	old  bool   // spelled `caractrl backup FILE`, as before there was `backup server`
}

// newBackup returns the group of backup commands. The group itself takes a file, as older scripts call it.
func newBackup(a *app) *cobra.Command {
	group := command(&cobra.Command{
		Use: "backup", Short: "Back up the server, or the data of a project", Args: cobra.ExactArgs(1),
		Example: "  caractrl backup server cara.tar\n  caractrl backup project shop --wait",
	}, &backupOptions{app: a, old: true})
	group.AddCommand(newBackupServer(a), newBackupProject(a))
	return group
}

func newBackupServer(a *app) *cobra.Command {
	return command(&cobra.Command{
		Use: "server FILE|-", Short: "Write a backup of the running server", Args: cobra.ExactArgs(1),
		Long: `Write everything that the server keeps, as of one moment, into a tar archive. The server keeps working meanwhile.

The archive contains the keys and tokens of the cluster: protect it as you protect keys. To restore, unpack it into an empty
data directory and start cara-server there.`,
		Example: "  caractrl backup server cara.tar\n  caractrl backup server - >cara.tar",
	}, &backupOptions{app: a})
}

func (o *backupOptions) parse(args []string) error {
	o.file = args[0]
	if o.file == "-" {
		if term.IsTerminal(o.Out) {
			return errors.New("a backup is binary, and the output is a terminal: name a file, or pipe it")
		}
		return nil
	}
	if _, err := os.Lstat(o.file); err == nil {
		return fmt.Errorf("%s exists: name a file that does not", o.file)
	}
	return nil
}

func (o *backupOptions) run(ctx context.Context) error {
	if o.old {
		fmt.Fprintf(o.Err, "note: write caractrl backup server %s; this spelling still works\n", term.Clean(o.file))
	}
	if o.file == "-" {
		_, err := o.copy(ctx, o.Out)
		return err
	}
	// The file gets its name when it is complete.
	f, err := renameio.NewPendingFile(o.file, renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write %s: %w", o.file, err)
	}
	size, err := o.copy(ctx, f)
	if err != nil {
		return errors.Join(err, f.Cleanup())
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", o.file, err)
	}
	fmt.Fprintf(o.Err, "%s written, %s\n", o.file, mebibytes(size))
	return nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// copy writes the archive to w, and shows its progress once a second.
func (o *backupOptions) copy(ctx context.Context, w io.Writer) (size int64, err error) {
	stream, err := carav1.NewInfoServiceClient(o.app).Backup(ctx, &emptypb.Empty{})
	if err != nil {
		return 0, err
	}
	shown := o.now()
	for {
		chunk, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return size, nil
		case err != nil:
			return size, err
		}
		n, err := w.Write(chunk.GetData())
		if size += int64(n); err != nil {
			return size, fmt.Errorf("write the backup: %w", err)
		}
		if now := o.now(); now.Sub(shown) >= time.Second {
			shown = now
			fmt.Fprintf(o.Err, "%s so far\n", mebibytes(size))
		}
	}
}

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
	c := o.projects()
	p, err := c.BackupProject(ctx, &carav1.BackupProjectRequest{Name: o.name})
	if err != nil {
		return err
	}
	if !o.wait {
		o.done("is backed up by node " + p.GetStatus().GetNodeRef() + "; caractrl get backups " + o.name + " shows the result")
		return nil
	}
	ctx, cancel := within(ctx, o.timeout)
	defer cancel()
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
