package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) adoptCommand() *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use: "adopt PROJECT [--source SOURCE]", Short: "Give a project that somebody made by hand to the source that declares it",
		Long: "Give a project that somebody made by hand to the source that declares it. From then on git decides: what the source\n" +
			"declares is applied at its next pass. caractrl diff source/SOURCE shows before what that would change.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.projects()
			if err != nil {
				return err
			}
			p, err := c.AdoptProject(cmd.Context(), &carav1.AdoptProjectRequest{
				Name: kind.Bare(kind.Project(), args[0]), Source: kind.Bare(kind.Source(), source),
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "project/%s belongs to %s now\n", term.Line(p.GetMetadata().GetName()), term.Line(whence(p.GetMetadata())))
			return nil
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "source that gets it; may be left out where just one declares the project")
	offer(cmd, "source", a.completeFlag(kind.Source()))
	return cmd
}

func (a *app) releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "release PROJECT", Short: "Take a project from its source: it is yours, and git has no say over it",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.projects()
			if err != nil {
				return err
			}
			p, err := c.ReleaseProject(cmd.Context(), &carav1.ReleaseProjectRequest{Name: kind.Bare(kind.Project(), args[0])})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "project/%s belongs to %s now\n", term.Line(p.GetMetadata().GetName()), term.Line(p.GetMetadata().GetOwner()))
			return nil
		},
	}
}

// whence says where a project comes from: its owner, and the place of its manifest.
func whence(meta *carav1.ObjectMeta) string {
	if o := meta.GetOrigin(); o.GetFile() != "" {
		return fmt.Sprintf("%s, %s:%d at %s", meta.GetOwner(), o.File, o.Line, api.ShortRevision(o.Revision))
	}
	return meta.GetOwner()
}
