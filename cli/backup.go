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

	"github.com/caravanserai/cara/cli/term"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE|-", Short: "Write a backup of the running server", Args: cobra.ExactArgs(1),
		Long: `Write everything that the server keeps, as of one moment, into a tar archive. The server goes on meanwhile.

The archive holds the keys and tokens of the cluster: keep it as you keep keys. To restore, unpack it into an empty data
directory and start cara-server there.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" {
				if term.IsTerminal(a.Out) {
					return errors.New("a backup is binary, and the output is a terminal: name a file, or pipe it")
				}
				_, err := a.backup(cmd.Context(), a.Out)
				return err
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return fmt.Errorf("%s exists: name a file that does not", args[0])
			}
			// It gets its name once it is whole.
			f, err := renameio.NewPendingFile(args[0], renameio.WithPermissions(0o600))
			if err != nil {
				return fmt.Errorf("write %s: %w", args[0], err)
			}
			size, err := a.backup(cmd.Context(), f)
			if err != nil {
				return errors.Join(err, f.Cleanup())
			}
			if err := f.CloseAtomicallyReplace(); err != nil {
				return fmt.Errorf("write %s: %w", args[0], err)
			}
			fmt.Fprintf(a.Err, "%s written, %s\n", args[0], mebibytes(size))
			return nil
		},
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// backup copies the archive to w and says on the way how far it is.
func (a *app) backup(ctx context.Context, w io.Writer) (size int64, err error) {
	conn, err := a.dial()
	if err != nil {
		return 0, err
	}
	stream, err := carav1.NewInfoServiceClient(conn).Backup(ctx, &emptypb.Empty{})
	if err != nil {
		return 0, err
	}
	said := a.now()
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
		if now := a.now(); now.Sub(said) >= time.Second {
			said = now
			fmt.Fprintf(a.Err, "%s so far\n", mebibytes(size))
		}
	}
}
