package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// overrideOptions are the flags of a human decision against git.
type overrideOptions struct {
	override        bool
	reason          string
	length          time.Duration
	untilNextChange bool
}

// flags are those of a command that goes against git only where it is told to.
func (o *overrideOptions) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.override, "override", false, "do it although a source owns the project; git has no say until the override ends")
	o.termFlags(cmd, "why (required with --override)")
}

func (o *overrideOptions) termFlags(cmd *cobra.Command, why string) {
	f := cmd.Flags()
	f.StringVar(&o.reason, "reason", "", why)
	f.DurationVar(&o.length, "for", 0, "end the override after this long")
	f.BoolVar(&o.untilNextChange, "until-next-change", false, "end the override when the manifest in git changes")
	cmd.MarkFlagsMutuallyExclusive("for", "until-next-change")
}

func (o *overrideOptions) terms() (*carav1.OverrideTerms, error) {
	switch {
	case !o.override && (o.reason != "" || o.length != 0 || o.untilNextChange):
		return nil, errors.New("--reason, --for and --until-next-change go with --override")
	case !o.override:
		return nil, nil
	case strings.TrimSpace(o.reason) == "":
		return nil, errors.New("an override needs --reason WHY: whoever is woken by it will want to know")
	case o.length < 0:
		return nil, errors.New("--for ends an override in the future: give a length above 0")
	}
	t := &carav1.OverrideTerms{Reason: o.reason, UntilNextChange: o.untilNextChange}
	if o.length != 0 {
		t.For = durationpb.New(o.length)
	}
	return t, nil
}

func (a *app) overrideCommand() *cobra.Command {
	o := overrideOptions{override: true}
	cmd := &cobra.Command{
		Use: "override PROJECT --reason WHY [--for D | --until-next-change]", Short: "Take git's say over a project away for a while, or give it back",
		Long: "Take git's say over a project of a source away: the project stays as it is, whatever its source declares, until the\n" +
			"override ends. Without --for and --until-next-change it stands until caractrl override clear ends it.",
		Example:           "  caractrl override web --reason 'the new version leaks' --for 2h\n  caractrl override clear web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.override(cmd.Context(), kind.Bare(kind.Project(), args[0]), o)
		},
	}
	o.termFlags(cmd, "why (required)")
	cmd.AddCommand(&cobra.Command{
		Use: "clear PROJECT", Short: "End the override of a project: git decides again", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.clearOverride(cmd.Context(), kind.Bare(kind.Project(), args[0]))
		},
	})
	return cmd
}

// clearOverride ends an override. A project without one is as it was asked for.
func (a *app) clearOverride(ctx context.Context, name string) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	_, err = c.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Clear: true})
	switch {
	case err == nil:
		fmt.Fprintf(a.Out, "project/%s is no longer overridden: git decides again\n", term.Line(name))
		return nil
	case !api.IsNotFound(err):
		return err
	}
	if _, err := c.GetProject(ctx, kind.ByName(name)); err != nil && !api.IsNotFound(err) {
		return err
	} else if err != nil {
		return fmt.Errorf("there is no project %q, and no override of one with this name", name)
	}
	fmt.Fprintf(a.Out, "project/%s has no override: nothing to clear\n", term.Line(name))
	return nil
}

func (a *app) override(ctx context.Context, name string, o overrideOptions) error {
	terms, err := o.terms()
	if err != nil {
		return err
	}
	c, err := a.projects()
	if err != nil {
		return err
	}
	over, err := c.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Terms: terms})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "project/%s is overridden %s: git has no say over it\n", term.Clean(name), untilWhen(a.now(), over))
	return nil
}

// untilWhen is when an override ends.
func untilWhen(now time.Time, o *carav1.Override) string {
	switch {
	case o.GetUntilHash() != "":
		return "until git's next change"
	case o.GetUntil() != nil:
		return "until " + o.GetUntil().AsTime().UTC().Format(time.RFC3339) + " (" + term.Until(now, o.GetUntil()).Text + ")"
	}
	return "until it is cleared"
}
