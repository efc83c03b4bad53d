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
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type restoreOptions struct {
	named
	snapshot string
	volumes  []string
	as       string
	node     string
	wait     bool
	cancel   bool
	timeout  time.Duration
}

func newRestore(a *app) *cobra.Command {
	o := &restoreOptions{named: aboutProject(a)}
	cmd := o.one(&cobra.Command{
		Use: "restore PROJECT", Short: "Restore the data of a project from its backups",
		Long: "Restore the Managed volumes of a project from the repository in its spec.backup. The node fills new volumes and\n" +
			"verifies them while the project runs on its old data. Then the project is stopped and starts on the new volumes. The\n" +
			"old data is kept until you delete it: caractrl get volumes shows it as Retained. What was written since the backup\n" +
			"is only there. If the restore fails or is cancelled, the project continues with its old data.\n\n" +
			"The project's node restores the data. If that is away, the scheduler chooses another one. With --to, the data becomes\n" +
			"volumes of another project name, and the project itself does not change.\n\n" +
			"The server and the node do the work: when this command ends before the restore does, the restore continues, and\n" +
			"caractrl get project PROJECT --watch shows it.\n\n" +
			"Exit codes with --wait: 0 the project runs on the restored data, 3 the restore or the project failed, 4 --timeout was\n" +
			"over, 1 anything else.",
		Example: "  caractrl restore shop --wait\n  caractrl restore shop --volume db --snapshot 1a2b3c4d\n  caractrl restore shop --to shop-old\n  caractrl restore shop --cancel",
	}, o)
	f := cmd.Flags()
	f.StringVar(&o.snapshot, "snapshot", api.SnapshotLatest, "id of the snapshot, as restic prints it; latest is the newest of each volume")
	f.StringArrayVar(&o.volumes, "volume", nil, "volume of the project to restore (repeatable); all by default")
	f.StringVar(&o.as, "to", "", "other project that the restored volumes are kept for")
	f.StringVar(&o.node, "node", "", "node that restores the data and then runs the project")
	f.BoolVar(&o.wait, "wait", false, "wait until the project runs on the restored data")
	f.BoolVar(&o.cancel, "cancel", false, "end the restore: the project continues with its old data")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 is as long as it takes")
	offer(cmd, "node", completion{a}.flag(kind.Node()))
	offer(cmd, "to", cobra.NoFileCompletions)
	offer(cmd, "snapshot", completion{a}.part(snapshots))
	offer(cmd, "volume", completion{a}.part(managedVolumes))
	return cmd
}

func (o *restoreOptions) parse(args []string) error {
	others := o.snapshot != api.SnapshotLatest || len(o.volumes) > 0 || o.as != "" || o.node != "" || o.wait
	switch {
	case o.timeout < 0:
		return errors.New("--timeout must not be negative; see caractrl restore --help")
	case o.cancel && others:
		return errors.New("--cancel ends a restore: leave out the other flags; see caractrl restore --help")
	}
	o.node = kind.Bare(kind.Node(), o.node)
	return o.named.parse(args)
}

func (o *restoreOptions) run(ctx context.Context) error {
	if err := o.nameCluster(); err != nil {
		return err
	}
	c := o.projects()
	if o.cancel {
		return o.cancelMove(ctx, c, "keeps its data: the restore is cancelled")
	}
	p, err := o.request(ctx, c)
	if err != nil {
		return err
	}
	if o.wait {
		return o.followMove(ctx, o.timeout, progress.NewRestore(o.name, o.as, p))
	}
	on := ""
	if node := p.GetStatus().GetMove().GetTo(); node != "" {
		on = " on node " + node
	}
	o.done(fmt.Sprintf("is being restored%s; caractrl get project %s --watch shows the progress", on, o.name))
	return nil
}

// request requests the restore. With --wait, it is not an error if the project is being restored already.
func (o *restoreOptions) request(ctx context.Context, c carav1.ProjectServiceClient) (*carav1.Project, error) {
	p, err := c.RestoreProject(ctx, &carav1.RestoreProjectRequest{Name: o.name, Snapshot: o.snapshot, Volumes: o.volumes, As: o.as, Node: o.node})
	if !o.wait || api.Code(err) != codes.FailedPrecondition {
		return p, err
	}
	now, getErr := c.GetProject(ctx, kind.ByName(o.name))
	if r := now.GetStatus().GetMove().GetRestore(); getErr != nil || r == nil || r.GetAs() != o.as {
		return nil, err
	}
	return now, nil
}
