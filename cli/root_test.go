package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Each command has an example that begins with the command itself, and the help of caractrl lists each by its task.
func TestHelp(t *testing.T) {
	root := newRoot(&app{})
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			check(sub)
		}
		if cmd != root && !strings.HasPrefix(cmd.Example, "  "+cmd.CommandPath()) {
			t.Errorf("%s: the example does not show it: %q", cmd.CommandPath(), cmd.Example)
		}
	}
	check(root)
	for _, cmd := range root.Commands() {
		if cmd.GroupID == "" {
			t.Errorf("%s belongs to no task", cmd.Name())
		}
	}
	if len(root.Commands()) < 25 {
		t.Errorf("only %d commands", len(root.Commands()))
	}
}
