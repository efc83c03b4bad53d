package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type historyOptions struct {
	named
	output string
}

func newHistory(a *app) *cobra.Command {
	o := &historyOptions{named: aboutProject(a)}
	cmd := o.one(&cobra.Command{
		Use: "history PROJECT", Short: "Show a project's last specs, with who wrote them and why",
		Example: "  caractrl history web",
	}, o)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", kind.Formats)
	offer(cmd, "output", cobra.FixedCompletions([]string{"json", "yaml"}, noFiles))
	return cmd
}

func (o *historyOptions) parse(args []string) (err error) {
	if o.output, err = kind.ParseFormat(o.output); err != nil {
		return err
	}
	return o.named.parse(args)
}

func (o *historyOptions) run(ctx context.Context) error {
	h, err := o.projects().GetProjectHistory(ctx, kind.ByName(o.name))
	if err != nil {
		return err
	}
	if o.output != "" && o.output != kind.Wide {
		objects := make([]proto.Message, len(h.GetItems()))
		for i, r := range h.GetItems() {
			objects[i] = r
		}
		return kind.Print(o.Out, o.output, true, objects)
	}
	rows := [][]term.Cell{term.Header("GENERATION", "REVISION", "ACTOR", "AUTHOR", "WHEN", "REASON", "SUBJECT")}
	for _, r := range h.GetItems() {
		from := r.GetOrigin()
		rows = append(rows, []term.Cell{
			term.Count(r.GetGeneration()), term.Text(api.ShortRevision(from.GetRevision())), term.Text(r.GetActor()), term.Text(from.GetAuthor()),
			term.Ago(o.now(), r.GetTime()), term.Text(term.Short(term.Line(r.GetReason()), 80)), term.Text(term.Short(term.Line(from.GetSubject()), 80)),
		})
	}
	term.NewTable(o.Out).Print(rows...)
	return nil
}

type rollbackOptions struct {
	named
	to       string
	override overrideFlags
	terms    *carav1.OverrideTerms
}

func newRollback(a *app) *cobra.Command {
	o := &rollbackOptions{named: aboutProject(a), override: overrideFlags{override: true}}
	cmd := o.one(&cobra.Command{
		Use: "rollback PROJECT --to REVISION --reason WHY [--for D | --until-next-change]", Short: "Go back to one of a project's last specs",
		Long: "Write one of a project's last specs again; caractrl history lists them. If a source owns the project this is an\n" +
			"override: git does not change the project until it ends.",
		Example: "  caractrl rollback web --to 3 --reason 'the new version leaks' --until-next-change",
	}, o)
	cmd.Flags().StringVar(&o.to, "to", "", "generation, or 7 characters or more of a commit (required)")
	o.override.addTerms(cmd, "why (required)")
	return cmd
}

func (o *rollbackOptions) parse(args []string) (err error) {
	if err := o.named.parse(args); err != nil {
		return err
	}
	if o.to == "" {
		return fmt.Errorf("name a revision with --to REVISION; caractrl history %s lists them", term.Line(o.name))
	}
	if strings.TrimSpace(o.override.reason) == "" {
		return errors.New("a rollback needs --reason WHY, for the people who find it later")
	}
	o.terms, err = o.override.terms()
	return err
}

func (o *rollbackOptions) run(ctx context.Context) error {
	c := o.projects()
	before, err := c.GetProject(ctx, kind.ByName(o.name))
	if err != nil {
		return err
	}
	_, owned := api.SourceOf(before.GetMetadata().GetOwner())
	if !owned && (o.override.length != 0 || o.override.untilNextChange) {
		return fmt.Errorf("no source owns project %q, so this is not an override that ends: leave out --for and --until-next-change", o.name)
	}
	after, err := c.RollbackProject(ctx, &carav1.RollbackProjectRequest{Name: o.name, To: o.to, Terms: o.terms})
	switch {
	case err != nil:
		return err
	case after.GetMetadata().GetResourceVersion() == before.GetMetadata().GetResourceVersion():
		o.done("unchanged")
		return nil
	}
	o.done("rolled back to " + o.to)
	if why := api.FindCondition(after.GetStatus().GetConditions(), api.CondOverridden); owned && why != nil {
		fmt.Fprintf(o.Err, "%s; caractrl override clear %s ends it\n", term.Line(why.GetMessage()), term.Line(o.name))
	}
	return nil
}
