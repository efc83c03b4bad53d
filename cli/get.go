package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
)

type getOptions struct {
	names    []string
	output   string
	watch    bool
	selector string
	phases   []string
	node     string
	owner    string
	object   string
	sortBy   string
	header   bool
}

func (a *app) getCommand() *cobra.Command {
	get := &cobra.Command{Use: "get KIND [NAME...]", Short: "Show objects as a table, or as JSON or YAML", Args: cobra.NoArgs}
	for _, k := range kinds() {
		get.AddCommand(a.getKindCommand(k))
	}
	return get
}

func (a *app) getKindCommand(k kind) *cobra.Command {
	o := getOptions{}
	cmd := &cobra.Command{
		Use: k.plural + " [NAME...]", Aliases: k.aliases, Short: k.short,
		ValidArgsFunction: a.complete(k),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if err := checkFormat(o.output); err != nil {
				return err
			}
			return a.get(cmd.Context(), k, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", formats)
	f.StringVarP(&o.selector, "selector", "l", "", "label selector, such as app=web,tier in (a,b)")
	f.StringVar(&o.sortBy, "sort-by", "", "column to sort by, such as AGE (default: NAME)")
	if k.watch != nil {
		f.BoolVarP(&o.watch, "watch", "w", false, "stay and show every change")
	}
	switch k.name {
	case api.KindProject:
		f.StringSliceVar(&o.phases, "phase", nil, "only projects in one of these phases")
		f.StringVar(&o.node, "node", "", "only projects on this node")
		f.StringVar(&o.owner, "owner", "", "only projects of this owner, such as source/platform")
	case api.KindEvent:
		f.StringVar(&o.object, "for", "", "only events of this object, such as project/web")
	}
	return cmd
}

func (a *app) get(ctx context.Context, k kind, o getOptions) error {
	if o.watch {
		return a.watchKind(ctx, k, o)
	}
	objects, err := a.fetch(ctx, k, o)
	if err != nil {
		return err
	}
	if o.output != "" && o.output != "wide" {
		return printObjects(a.Out, o.output, len(o.names) != 1, objects)
	}
	if len(objects) == 0 {
		fmt.Fprintf(a.Err, "no %s found\n", k.plural)
		return nil
	}
	rows := make([][]cell, 0, len(objects)+1)
	for _, obj := range objects {
		rows = append(rows, a.row(k, o, obj))
	}
	if err := sortRows(k.head(o.output == "wide"), rows, objects, o.sortBy, k); err != nil {
		return err
	}
	newTable(a.Out).print(append([][]cell{header(k.head(o.output == "wide")...)}, rows...)...)
	return nil
}

// fetch returns the objects that were named, or all that the filters leave.
func (a *app) fetch(ctx context.Context, k kind, o getOptions) ([]proto.Message, error) {
	if len(o.names) == 0 {
		return k.list(ctx, a, o)
	}
	if k.get == nil {
		return a.pick(ctx, k, o)
	}
	var found []proto.Message
	for _, name := range o.names {
		obj, err := k.get(ctx, a, bare(name))
		if err != nil {
			return nil, err
		}
		found = append(found, obj)
	}
	return found, nil
}

// pick takes the named ones out of a list, for kinds that have no call for one.
func (a *app) pick(ctx context.Context, k kind, o getOptions) ([]proto.Message, error) {
	all, err := k.list(ctx, a, o)
	if err != nil {
		return nil, err
	}
	var found []proto.Message
	for _, name := range o.names {
		i := slices.IndexFunc(all, func(m proto.Message) bool { return api.Meta(m).GetName() == bare(name) })
		if i < 0 {
			return nil, fmt.Errorf("%s %q not found", strings.ToLower(k.name), bare(name))
		}
		found = append(found, all[i])
	}
	return found, nil
}

// bare takes `project/web` as `web`.
func bare(name string) string {
	if _, after, ok := strings.Cut(name, "/"); ok {
		return after
	}
	return name
}

func (a *app) row(k kind, o getOptions, obj proto.Message) []cell {
	row := k.row(obj, a.now())
	if o.output != "wide" {
		return row[:len(k.columns)]
	}
	return row
}

// sortRows sorts rows by a column as people read it; by age where the column is AGE.
func sortRows(head []string, rows [][]cell, objects []proto.Message, column string, k kind) error {
	if column == "" {
		return nil
	}
	i := slices.IndexFunc(head, func(h string) bool { return strings.EqualFold(h, column) })
	if i < 0 {
		return fmt.Errorf("no column %q to sort by: %s have %s", column, k.plural, strings.Join(head, ", "))
	}
	order := make([]int, len(rows))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(x, y int) int {
		if strings.EqualFold(column, "AGE") {
			tx, ty := api.Meta(objects[x]).GetCreationTimestamp().AsTime(), api.Meta(objects[y]).GetCreationTimestamp().AsTime()
			return ty.Compare(tx)
		}
		return strings.Compare(rows[x][i].text, rows[y][i].text)
	})
	sorted := make([][]cell, len(rows))
	for n, from := range order {
		sorted[n] = rows[from]
	}
	copy(rows, sorted)
	return nil
}

// watchKind shows what there is, then every change, until it is interrupted.
func (a *app) watchKind(ctx context.Context, k kind, o getOptions) error {
	recv, err := k.watch(ctx, a, o)
	if err != nil {
		return err
	}
	t := newTable(a.Out)
	first := [][]cell{header(k.head(o.output == "wide")...)}
	synced := false
	for {
		event, err := recv()
		switch {
		case errors.Is(err, io.EOF) || (err != nil && ctx.Err() != nil):
			return nil
		case err != nil:
			return err
		case event.kind == "Bookmark":
			if !synced && o.output == "" || !synced && o.output == "wide" {
				t.print(first...) // what there was, in one table with one set of widths
			}
			synced = true
			continue
		case len(o.names) > 0 && !slices.Contains(o.names, api.Meta(event.object).GetName()):
			continue
		case o.output != "" && o.output != "wide":
			if err := printObjects(a.Out, o.output, false, []proto.Message{event.object}); err != nil {
				return err
			}
			continue
		}
		row := a.row(k, o, event.object)
		if event.kind == "Deleted" {
			row = k.gone(row)
		}
		if synced {
			t.print(row)
		} else {
			first = append(first, row)
		}
	}
}

// complete offers the names that there are, for the shell's completion.
func (a *app) complete(k kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		objects, err := k.list(cmd.Context(), a, getOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, obj := range objects {
			if name := api.Meta(obj).GetName(); strings.HasPrefix(name, prefix) && !slices.Contains(args, name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
