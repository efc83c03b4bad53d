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

func (a *app) historyCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "history PROJECT", Short: "Show what a project was: its last specs, with who wrote them and why",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if output, err = parseFormat(output); err != nil {
				return err
			}
			return a.history(cmd.Context(), kind.Bare(kind.Project(), args[0]), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", formats)
	offer(cmd, "output", cobra.FixedCompletions([]string{"json", "yaml"}, noFiles))
	return cmd
}

func (a *app) history(ctx context.Context, name, output string) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	h, err := c.GetProjectHistory(ctx, kind.ByName(name))
	if err != nil {
		return err
	}
	if output != "" && output != wide {
		objects := make([]proto.Message, len(h.GetItems()))
		for i, r := range h.GetItems() {
			objects[i] = r
		}
		return printObjects(a.Out, output, true, objects)
	}
	rows := [][]term.Cell{term.Header("GENERATION", "REVISION", "ACTOR", "AUTHOR", "WHEN", "REASON", "SUBJECT")}
	for _, r := range h.GetItems() {
		o := r.GetOrigin()
		rows = append(rows, []term.Cell{
			term.Count(r.GetGeneration()), term.Text(api.ShortRevision(o.GetRevision())), term.Text(r.GetActor()), term.Text(o.GetAuthor()),
			term.Ago(a.now(), r.GetTime()), term.Text(term.Short(term.Line(r.GetReason()), 80)), term.Text(term.Short(term.Line(o.GetSubject()), 80)),
		})
	}
	term.NewTable(a.Out).Print(rows...)
	return nil
}

type rollbackOptions struct {
	to    string
	terms overrideOptions
}

func (a *app) rollbackCommand() *cobra.Command {
	o := rollbackOptions{terms: overrideOptions{override: true}}
	cmd := &cobra.Command{
		Use: "rollback PROJECT --to REVISION --reason WHY [--for D | --until-next-change]", Short: "Write one of a project's last specs again",
		Long: "Write one of a project's last specs again; caractrl history lists them. For a project that a source owns this is an\n" +
			"override: git has no say until it ends.",
		Example: "  caractrl rollback web --to 3 --reason 'the new version leaks' --until-next-change",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.rollback(cmd.Context(), kind.Bare(kind.Project(), args[0]), o)
		},
	}
	cmd.Flags().StringVar(&o.to, "to", "", "generation, or 7 characters or more of a commit (required)")
	o.terms.termFlags(cmd, "why (required)")
	return cmd
}

func (a *app) rollback(ctx context.Context, name string, o rollbackOptions) error {
	if o.to == "" {
		return fmt.Errorf("say which with --to REVISION; caractrl history %s lists them", term.Line(name))
	}
	if strings.TrimSpace(o.terms.reason) == "" {
		return errors.New("a rollback needs --reason WHY: whoever is woken by it will want to know")
	}
	terms, err := o.terms.terms()
	if err != nil {
		return err
	}
	c, err := a.projects()
	if err != nil {
		return err
	}
	before, err := c.GetProject(ctx, kind.ByName(name))
	if err != nil {
		return err
	}
	owned := strings.HasPrefix(before.GetMetadata().GetOwner(), api.PrefixSource)
	if !owned && (o.terms.length != 0 || o.terms.untilNextChange) {
		return fmt.Errorf("no source owns project %q: there is no override that could end, leave --for and --until-next-change out", name)
	}
	after, err := c.RollbackProject(ctx, &carav1.RollbackProjectRequest{Name: name, To: o.to, Terms: terms})
	switch {
	case err != nil:
		return err
	case after.GetMetadata().GetResourceVersion() == before.GetMetadata().GetResourceVersion():
		fmt.Fprintf(a.Out, "project/%s unchanged\n", term.Line(name))
		return nil
	}
	fmt.Fprintf(a.Out, "project/%s rolled back to %s\n", term.Line(name), term.Line(o.to))
	if why := api.FindCondition(after.GetStatus().GetConditions(), api.CondOverridden); owned && why != nil {
		fmt.Fprintf(a.Err, "%s; caractrl override clear %s ends it\n", term.Line(why.GetMessage()), term.Line(name))
	}
	return nil
}
