package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// overrideOptions are the flags of a human decision against git.
type overrideOptions struct {
	override        bool
	reason          string
	length          time.Duration
	untilNextChange bool
}

func (o *overrideOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.override, "override", false, "do it although a source owns the project; git has no say until the override ends")
	f.StringVar(&o.reason, "reason", "", "why (required with --override)")
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
		return nil, errors.New("--override needs --reason WHY: whoever is woken by it will want to know")
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
	cmd := &cobra.Command{Use: "override", Short: "End a decision against git", Args: cobra.NoArgs}
	cmd.AddCommand(a.projectVerb("clear PROJECT", "End the override of a project: git wins again", "has no override",
		func(ctx context.Context, c carav1.ProjectServiceClient, name string) error {
			_, err := c.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Clear: true})
			return err
		}))
	return cmd
}
