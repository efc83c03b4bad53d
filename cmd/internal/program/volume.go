package program

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/agent/volume"
)

// helper returns the command that rsync runs to reach another node: this program, even if its file has been replaced since.
func helper() []string {
	return []string{fmt.Sprintf("/proc/%d/exe", os.Getpid()), volume.PipeCommand}
}

// VolumePipe returns the hidden command for helper.
func VolumePipe() *cobra.Command {
	return &cobra.Command{
		Use: volume.PipeCommand, Hidden: true, DisableFlagParsing: true, Short: "Connect rsync with the agent that started it",
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil }, // no settings
		RunE:              func(*cobra.Command, []string) error { return volume.Pipe() },
	}
}
