package cli

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/internal/access"
)

func (a *app) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context [NAME]", Short: "Show the servers that are known, or choose one", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := a.contextsFile()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return access.Use(file, args[0])
			}
			contexts, err := access.Load(file)
			if err != nil {
				return err
			}
			rows := [][]cell{header("CURRENT", "NAME", "SERVER")}
			for _, name := range slices.Sorted(maps.Keys(contexts.Contexts)) {
				current := " "
				if name == contexts.Current {
					current = "*"
				}
				rows = append(rows, []cell{{text: current}, text(name), text(contexts.Contexts[name].Server)})
			}
			if len(rows) == 1 {
				fmt.Fprintf(a.Err, "no contexts in %s\n", file)
				return nil
			}
			newTable(a.Out).print(rows...)
			return nil
		},
	}
	return cmd
}
