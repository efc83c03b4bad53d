package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// group is a command that only has others below it: alone it shows them, and any other word is no command.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = known
	cmd.SuggestionsMinimumDistance = 2
	if cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	return cmd
}

// firstWord returns the first word after the command's own path that is neither a flag nor the value of a known flag;
// "" if there is none.
func firstWord(cmd *cobra.Command, args []string) string {
	path := strings.Fields(cmd.CommandPath())[1:]
	for i := 0; i < len(args); i++ {
		flag, isFlag := strings.CutPrefix(args[i], "--")
		switch {
		case isFlag:
			if f := cmd.Flag(flag); f != nil && f.NoOptDefVal == "" {
				i++ // its value
			}
		case strings.HasPrefix(args[i], "-"):
		case len(path) > 0 && args[i] == path[0]:
			path = path[1:]
		default:
			return args[i]
		}
	}
	return ""
}

// known refuses a word that is no command, and says which one may be meant.
func known(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = ", did you mean " + strings.Join(like, " or ") + "?"
	}
	return fmt.Errorf("there is no command %q%s (%s --help lists the commands)",
		strings.TrimSpace(cmd.CommandPath()+" "+args[0]), hint, cmd.CommandPath())
}
