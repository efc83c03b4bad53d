package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
)

type getOptions struct {
	kind.Filter
	kind   kind.Kind
	names  []string
	output string
	watch  bool
	object string
	sortBy string
}

func (a *app) getCommand() *cobra.Command {
	o := getOptions{}
	cmd := &cobra.Command{
		Use: "get KIND [NAME...] | get KIND/NAME...", Short: "Show objects as a table, or as JSON or YAML",
		Long:              "Show objects as a table, or as JSON or YAML. Kinds are " + kindWords() + ".",
		Example:           "  caractrl get projects -l team=shop\n  caractrl get project/web -o json\n  caractrl get projects --phase Failed -w",
		ValidArgsFunction: a.completeRefs(func(kind.Kind) bool { return true }),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(args); err != nil {
				return err
			}
			return a.get(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", formats)
	f.StringVarP(&o.Selector, "selector", "l", "", "label selector, such as 'app=web,tier in (a,b)'")
	f.StringVar(&o.sortBy, "sort-by", "", "column such as AGE, or jsonpath such as .metadata.creationTimestamp (default: by name)")
	f.BoolVarP(&o.watch, "watch", "w", false, "stay and show every change")
	f.StringSliceVar(&o.Phases, "phase", nil, "only projects in one of these phases")
	f.StringVar(&o.Node, "node", "", "only projects on this node")
	f.StringVar(&o.Owner, "owner", "", "only projects of this owner, such as source/platform")
	f.StringVar(&o.object, "for", "", "only events of this object, such as project/web")
	offer(cmd, "output", cobra.FixedCompletions([]string{"table", "json", "yaml", "wide", "name"}, cobra.ShellCompDirectiveNoFileComp))
	var phases []string
	for _, phase := range api.Phases() {
		phases = append(phases, string(phase))
	}
	offer(cmd, "phase", cobra.FixedCompletions(phases, cobra.ShellCompDirectiveNoFileComp))
	offer(cmd, "node", a.completeFlag(kind.Node()))
	return cmd
}

func kindWords() string {
	var words []string
	for _, k := range kind.All() {
		words = append(words, k.Plural)
	}
	return strings.Join(words, ", ")
}

// parse checks what the command line says.
func (o *getOptions) parse(args []string) error {
	refs, err := kind.ParseRefs(args)
	if err != nil {
		return err
	}
	o.kind = refs[0].Kind
	for _, r := range refs {
		if r.Kind.Name != o.kind.Name {
			return fmt.Errorf("one kind at a time: %s and %s are two", o.kind.Plural, r.Kind.Plural)
		}
		if r.Name != "" {
			o.names = append(o.names, r.Name)
		}
	}
	if o.output, err = parseFormat(o.output); err != nil {
		return err
	}
	ofProjects := len(o.Phases) > 0 || o.Node != "" || o.Owner != ""
	switch {
	case ofProjects && o.kind.Name != api.KindProject:
		return errors.New("--phase, --node and --owner are for projects")
	case o.object != "" && o.kind.Name != api.KindEvent:
		return errors.New("--for is for events")
	case o.watch && o.kind.Watch == nil:
		return fmt.Errorf("%s cannot be watched", o.kind.Plural)
	case o.watch && o.sortBy != "":
		return errors.New("--sort-by and --watch do not go together: changes come in their own order")
	case len(o.names) > 0 && (ofProjects || o.Selector != ""):
		return errors.New("names and filters do not go together")
	case o.object == "":
		return nil
	}
	object, err := kind.ParseRefs([]string{o.object})
	if err == nil {
		o.Object = object[0]
	}
	return err
}

func (a *app) get(ctx context.Context, o getOptions) error {
	conn, err := a.dial()
	if err != nil {
		return err
	}
	if o.watch {
		return a.watchKind(ctx, conn, o)
	}
	objects, err := fetch(ctx, conn, o)
	if err != nil {
		return err
	}
	if err := sortObjects(o.kind, objects, o.sortBy, a.now()); err != nil {
		return err
	}
	if !o.table() {
		return printObjects(a.Out, o.output, len(o.names) != 1, objects)
	}
	if len(objects) == 0 {
		fmt.Fprintf(a.Err, "no %s found\n", o.kind.Plural)
		return nil
	}
	rows := [][]term.Cell{term.Header(o.kind.Head(o.output == wide)...)}
	for _, obj := range objects {
		rows = append(rows, a.row(o, obj))
	}
	term.NewTable(a.Out).Print(rows...)
	return nil
}

func (o getOptions) table() bool { return o.output == "" || o.output == wide }

// fetch returns the objects that were named, or all that the filters leave.
func fetch(ctx context.Context, conn grpc.ClientConnInterface, o getOptions) ([]proto.Message, error) {
	if len(o.names) == 0 {
		return o.kind.List(ctx, conn, o.Filter)
	}
	get := o.kind.Get
	if get == nil {
		all, err := o.kind.List(ctx, conn, o.Filter)
		if err != nil {
			return nil, err
		}
		get = pickFrom(o.kind, all)
	}
	found := make([]proto.Message, len(o.names))
	for i, name := range o.names {
		var err error
		if found[i], err = get(ctx, conn, name); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// pickFrom takes one object out of a list, for kinds that have no call for one.
func pickFrom(k kind.Kind, all []proto.Message) func(context.Context, grpc.ClientConnInterface, string) (proto.Message, error) {
	return func(_ context.Context, _ grpc.ClientConnInterface, name string) (proto.Message, error) {
		i := slices.IndexFunc(all, func(m proto.Message) bool { return api.Meta(m).GetName() == name })
		if i < 0 {
			return nil, fmt.Errorf("%s %q not found", k.Lower(), name)
		}
		return all[i], nil
	}
}

func (a *app) row(o getOptions, obj proto.Message) []term.Cell {
	row := o.kind.Row(obj, a.now())
	if o.output != wide {
		return row[:len(o.kind.Columns)]
	}
	return row
}
