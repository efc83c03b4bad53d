package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// overrideFlags are the flags for overriding git.
type overrideFlags struct {
	override        bool
	reason          string
	length          time.Duration
	untilNextChange bool
}

// add adds the flags to a command that overrides git only with --override.
func (o *overrideFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.override, "override", false, "do it although a source owns the project; git does not change it until the override ends")
	o.addTerms(cmd, "why (required with --override)")
}

func (o *overrideFlags) addTerms(cmd *cobra.Command, why string) {
	f := cmd.Flags()
	f.StringVar(&o.reason, "reason", "", why)
	f.DurationVar(&o.length, "for", 0, "end the override after this long")
	f.BoolVar(&o.untilNextChange, "until-next-change", false, "end the override when the manifest in git changes")
	cmd.MarkFlagsMutuallyExclusive("for", "until-next-change")
}

func (o *overrideFlags) terms() (*carav1.OverrideTerms, error) {
	switch {
	case !o.override && (o.reason != "" || o.length != 0 || o.untilNextChange):
		return nil, errors.New("--reason, --for and --until-next-change go with --override")
	case !o.override:
		return nil, nil
	case strings.TrimSpace(o.reason) == "":
		return nil, errors.New("an override needs --reason WHY, for the people who find it later")
	case o.length < 0:
		return nil, errors.New("--for says how long the override lasts: give a length above 0")
	}
	t := &carav1.OverrideTerms{Reason: o.reason, UntilNextChange: o.untilNextChange}
	if o.length != 0 {
		t.For = durationpb.New(o.length)
	}
	return t, nil
}

type overrideOptions struct {
	named
	flags overrideFlags
	terms *carav1.OverrideTerms
}

func newOverride(a *app) *cobra.Command {
	o := &overrideOptions{named: aboutProject(a), flags: overrideFlags{override: true}}
	cmd := o.one(&cobra.Command{
		Use: "override PROJECT --reason WHY [--for D | --until-next-change]", Short: "Stop git from changing a project for a while, or let it again",
		Long: "Stop git from changing a project of a source: the project stays as it is, whatever its source declares, until the\n" +
			"override ends. Without --for and --until-next-change it lasts until caractrl override clear ends it.",
		Example: "  caractrl override web --reason 'the new version leaks' --for 2h\n  caractrl override clear web",
	}, o)
	o.flags.addTerms(cmd, "why (required)")
	cmd.AddCommand(newVerb(aboutProject(a), &cobra.Command{
		Use: "clear PROJECT", Short: "End the override of a project: git decides again", Example: "  caractrl override clear web",
	}, clearOverride))
	return cmd
}

func (o *overrideOptions) parse(args []string) (err error) {
	if o.terms, err = o.flags.terms(); err != nil {
		return err
	}
	return o.named.parse(args)
}

func (o *overrideOptions) run(ctx context.Context) error {
	over, err := o.projects().OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: o.name, Terms: o.terms})
	if err == nil {
		o.done("is overridden " + kind.UntilWhen(o.now(), over) + ": git does not change it")
	}
	return err
}

// clearOverride ends an override. It succeeds if the project has no override.
func clearOverride(ctx context.Context, conn grpc.ClientConnInterface, name string) (done string, err error) {
	c := carav1.NewProjectServiceClient(conn)
	_, err = c.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Clear: true})
	switch {
	case err == nil:
		return "is no longer overridden: git decides again", nil
	case !api.IsNotFound(err):
		return "", err
	}
	if _, err := c.GetProject(ctx, kind.ByName(name)); api.IsNotFound(err) {
		return "", fmt.Errorf("there is no project %q, and no override for this name", name)
	} else if err != nil {
		return "", err
	}
	return "has no override: nothing to clear", nil
}

func newAdopt(a *app) *cobra.Command {
	var source string
	cmd := newVerb(aboutProject(a), &cobra.Command{
		Use: "adopt PROJECT [--source SOURCE]", Short: "Give a project that was made by hand to the source that declares it",
		Long: "Give a project that was made by hand to the source that declares it. From then on git decides: the source applies\n" +
			"its manifest at its next pass. caractrl diff source/SOURCE shows beforehand what that would change.",
		Example: "  caractrl adopt web --source platform",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		p, err := carav1.NewProjectServiceClient(conn).AdoptProject(ctx, &carav1.AdoptProjectRequest{Name: name, Source: kind.Bare(kind.Source(), source)})
		return "belongs to " + kind.Provenance(p.GetMetadata()) + " now", err
	})
	cmd.Flags().StringVar(&source, "source", "", "source that gets it; not needed if only one declares the project")
	offer(cmd, "source", completion{a}.flag(kind.Source()))
	return cmd
}

func newRelease(a *app) *cobra.Command {
	cmd := newVerb(aboutProject(a), &cobra.Command{
		Use: "release PROJECT", Short: "Take a project from its source: it is yours, and git does not change it",
		Example: "  caractrl release web\n  caractrl release volume shop.db",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		p, err := carav1.NewProjectServiceClient(conn).ReleaseProject(ctx, &carav1.ReleaseProjectRequest{Name: name})
		return "belongs to " + p.GetMetadata().GetOwner() + " now", err
	})
	cmd.AddCommand(newReleaseVolume(a))
	return cmd
}
