package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func aboutVolume(a *app) named { return named{app: a, kind: kind.Volume()} }

// volumeText describes the data of a volume, for the question before it is given up.
func volumeText(v *carav1.Volume, now time.Time) string {
	size := "data of unknown size"
	switch cell := kind.VolumeSize(v); {
	case v.GetStatus().GetSizeTime() == nil:
	case cell.Order < 1024:
		size = term.Plural(int(cell.Order), "byte") + " of data"
	default:
		size = cell.Text + " of data"
	}
	backup := "no backup of it is known"
	if at := v.GetStatus().GetLastBackup(); at != nil {
		backup = "it was last backed up " + term.Ago(now, at).Text
	}
	return fmt.Sprintf("volume %q has %s of project %s on node %s, made %s; %s", v.GetMetadata().GetName(), size,
		v.GetSpec().GetProject(), v.GetStatus().GetNode(), term.Ago(now, v.GetMetadata().GetCreationTimestamp()).Text, backup)
}

// confirm asks a person at a terminal. Without a terminal it needs --yes.
func (a *app) confirm(yes bool, text, question string) error {
	switch {
	case yes:
		return nil
	case !term.IsTerminal(a.In):
		return fmt.Errorf("%s; give --yes to confirm", term.Line(text))
	}
	fmt.Fprintf(a.Err, "%s\n%s [y/N] ", term.Line(text), question)
	answer, _ := bufio.NewReader(a.In).ReadString('\n') // the end of the input is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was changed")
}

// deleteVolume deletes a volume with its data. It asks if there is data, and waits for its end with --wait.
func (o *deleteOptions) deleteVolume(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
	c := carav1.NewVolumeServiceClient(conn)
	v, err := c.GetVolume(ctx, kind.ByName(name))
	if err != nil {
		return err
	}
	uid := v.GetMetadata().GetUid()
	if v.GetStatus().GetState() == api.VolumeRetained {
		text := volumeText(v, o.now()) + ". Deleting it is final; snapshots of backups stay in their repository"
		if err := o.confirm(o.yes, text, "Delete the volume and its data?"); err != nil {
			return err
		}
	}
	if v, err = c.DeleteVolume(ctx, &carav1.DeleteRequest{Name: name, Uid: uid}); err != nil {
		return err
	}
	if gone, err := volumeGone(ctx, c, name, uid); err != nil {
		return err
	} else if !gone {
		fmt.Fprintf(o.Out, "volume %q is being deleted: node %s has not confirmed it yet\n", name, term.Line(v.GetStatus().GetNode()))
		if !o.wait {
			return nil
		}
		if err := waitVolumeGone(ctx, conn, name, uid, o.timeout); err != nil {
			return err
		}
	}
	fmt.Fprintf(o.Out, "volume %q deleted\n", name)
	return nil
}

// volumeGone reports whether a volume does not exist any more. A newer volume may have its name.
func volumeGone(ctx context.Context, c carav1.VolumeServiceClient, name, uid string) (bool, error) {
	v, err := c.GetVolume(ctx, kind.ByName(name))
	if api.IsNotFound(err) {
		return true, nil
	}
	return v.GetMetadata().GetUid() != uid, err
}

// waitVolumeGone waits until a volume is gone. It follows the uid, because a newer volume may take the name.
func waitVolumeGone(ctx context.Context, conn grpc.ClientConnInterface, name, uid string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := carav1.NewWatchServiceClient(conn).Watch(ctx, &carav1.WatchRequest{Kinds: []string{api.KindVolume}})
	if err != nil {
		return err
	}
	for seen, synced := false, false; !synced || seen; {
		m, err := stream.Recv()
		switch {
		case timedOut(err):
			return term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("volume %q is still being deleted after %s; caractrl describe volume %s tells more", name, timeout, name)}
		case err != nil:
			return err
		}
		for _, c := range m.GetChanges() { // a renamed volume is deleted first, and then present
			if c.GetObject().GetVolume().GetMetadata().GetUid() == uid {
				seen = !c.GetDeleted()
			}
		}
		synced = synced || m.GetSynced()
	}
	return nil
}

type recreateOptions struct {
	named
	yes bool
}

func newRecreate(a *app) *cobra.Command {
	o := &recreateOptions{named: aboutVolume(a)}
	volume := o.one(&cobra.Command{
		Use: "volume PROJECT.NAME", Short: "Give a project an empty volume in the place of a Lost one",
		Long: "Give a project an empty volume in the place of a Lost one. The project starts again without the data.\n\n" +
			"Cara never starts a project on an empty volume by itself when its data is gone. Look for the data first: join the\n" +
			"node again, mount its disk, or restore the Docker volume that caractrl describe volume names.",
		Example: "  caractrl recreate volume shop.db",
	}, o)
	volume.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	cmd := group(&cobra.Command{
		Use: "recreate", Short: "Start with an empty volume in the place of a Lost one", Example: "  caractrl recreate volume shop.db",
	})
	cmd.AddCommand(volume)
	return cmd
}

func (o *recreateOptions) run(ctx context.Context) error {
	if err := o.nameCluster(); err != nil {
		return err
	}
	c := carav1.NewVolumeServiceClient(o.app)
	v, err := c.GetVolume(ctx, kind.ByName(o.name))
	if err != nil {
		return err
	}
	if v.GetStatus().GetState() == api.VolumeLost { // the server refuses every other state
		text := fmt.Sprintf("volume %q is Lost: %s. Project %s will start with an empty volume", o.name, v.GetStatus().GetMessage(), v.GetSpec().GetProject())
		if err := o.confirm(o.yes, text, "Start with an empty volume?"); err != nil {
			return err
		}
	}
	if _, err := c.RecreateVolume(ctx, kind.ByName(o.name)); err != nil {
		return err
	}
	o.done("is empty now: project " + v.GetSpec().GetProject() + " starts without the data")
	return nil
}

func newReleaseVolume(a *app) *cobra.Command {
	return newVerb(aboutVolume(a), &cobra.Command{
		Use: "volume PROJECT.NAME", Short: "Let the next project of the name have a volume's data, whoever owns the project",
		Example: "  caractrl release volume shop.db",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		v, err := carav1.NewVolumeServiceClient(conn).ReleaseVolume(ctx, kind.ByName(name))
		return "has no owner now: the next project " + v.GetSpec().GetProject() + " gets its data", err
	})
}
