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
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
)

type getOptions struct {
	*app
	kind.Filter
	kind   kind.Kind
	names  []string
	output string
	watch  bool
	object string
	sortBy string
}

func newGet(a *app) *cobra.Command {
	o := &getOptions{app: a}
	cmd := command(&cobra.Command{
		Use: "get KIND [NAME...] | get KIND/NAME...", Short: "Show objects as a table, or as JSON or YAML",
		Long: "Show objects as a table, or as JSON or YAML. Kinds are " + kind.Words(kind.All()...) + ".",
		Example: "  caractrl get projects -l team=shop\n  caractrl get project/web -o json\n  caractrl get projects --phase Failed -w\n" +
			"  caractrl get volumes --project shop -o wide\n  caractrl get routes",
		ValidArgsFunction: completion{a}.refs(func(kind.Kind) bool { return true }),
	}, o)
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", kind.Formats)
	f.StringVarP(&o.Selector, "selector", "l", "", "label selector, such as 'app=web,tier in (a,b)'")
	f.StringVar(&o.sortBy, "sort-by", "", "column such as AGE, or jsonpath such as .metadata.creationTimestamp (default: by name)")
	f.BoolVarP(&o.watch, "watch", "w", false, "keep running and show every change")
	f.StringSliceVar(&o.Phases, "phase", nil, "only projects in one of these phases")
	f.StringVar(&o.Node, "node", "", "only projects, volumes or routes on this node")
	f.StringVar(&o.Owner, "owner", "", "only projects or routes of this owner, such as source/platform")
	f.StringVar(&o.Project, "project", "", "only volumes or routes of this project")
	f.StringVar(&o.State, "state", "", "only volumes in this state: "+strings.Join(kind.VolumeStates(), ", "))
	f.StringVar(&o.object, "for", "", "only events of this object, such as project/web")
	offer(cmd, "output", cobra.FixedCompletions([]string{"table", "json", "yaml", "wide", "name"}, noFiles))
	var phases []string
	for _, phase := range api.Phases() {
		phases = append(phases, string(phase))
	}
	offer(cmd, "phase", cobra.FixedCompletions(phases, noFiles))
	offer(cmd, "state", cobra.FixedCompletions(kind.VolumeStates(), noFiles))
	offer(cmd, "node", completion{a}.flag(kind.Node()))
	offer(cmd, "project", completion{a}.flag(kind.Project()))
	return cmd
}

func (o *getOptions) parse(args []string) error {
	refs, err := kind.ParseRefs(args)
	if err != nil {
		return err
	}
	o.kind = refs[0].Kind
	for _, r := range refs {
		if r.Kind.Name != o.kind.Name {
			return fmt.Errorf("give objects of one kind: %s and %s are two kinds", o.kind.Plural, r.Kind.Plural)
		}
		if r.Name != "" {
			o.names = append(o.names, r.Name)
		}
	}
	if o.output, err = kind.ParseFormat(o.output); err != nil {
		return err
	}
	switch wrong := o.misplaced(); {
	case wrong != "":
		return errors.New(wrong)
	case o.State != "" && !slices.Contains(kind.VolumeStates(), o.State):
		return fmt.Errorf("unknown state %q; the states of volumes are %s", o.State, strings.Join(kind.VolumeStates(), ", "))
	case o.Selector != "" && o.kind.Name == api.KindVolume:
		return errors.New("volumes have no labels; choose them by --project, --node or --state")
	case o.object != "" && o.kind.Name != api.KindEvent:
		return errors.New("--for is for events")
	case o.watch && o.kind.Watch == nil:
		return fmt.Errorf("%s cannot be watched", o.kind.Plural)
	case o.watch && o.sortBy != "":
		return errors.New("--sort-by cannot be used with --watch: changes are shown in the order in which they happen")
	case len(o.names) > 0 && o.filtered():
		return errors.New("give names or filters, not both")
	case o.object == "":
		return nil
	}
	object, err := kind.ParseRefs([]string{o.object})
	if err == nil {
		o.Object = object[0]
	}
	return err
}

// misplaced says which filter is set that is not for objects of this kind, or returns "".
func (o *getOptions) misplaced() string {
	for _, f := range []struct {
		name  string
		set   bool
		kinds []kind.Kind
	}{
		{"phase", len(o.Phases) > 0, []kind.Kind{kind.Project()}},
		{"owner", o.Owner != "", []kind.Kind{kind.Project(), kind.Route()}},
		{"node", o.Node != "", []kind.Kind{kind.Project(), kind.Volume(), kind.Route()}},
		{"project", o.Project != "", []kind.Kind{kind.Volume(), kind.Route()}},
		{"state", o.State != "", []kind.Kind{kind.Volume()}},
	} {
		if f.set && !slices.ContainsFunc(f.kinds, func(k kind.Kind) bool { return k.Name == o.kind.Name }) {
			return fmt.Sprintf("--%s is for %s, not for %s", f.name, kind.Words(f.kinds...), o.kind.Plural)
		}
	}
	return ""
}

func (o *getOptions) run(ctx context.Context) error {
	if o.watch {
		return o.follow(ctx)
	}
	objects, err := o.fetch(ctx)
	if err != nil {
		return err
	}
	if err := kind.Sort(o.kind, objects, o.sortBy, o.now()); err != nil {
		return err
	}
	if !o.table() {
		return kind.Print(o.Out, o.output, len(o.names) != 1, objects)
	}
	if len(objects) == 0 {
		fmt.Fprintf(o.Err, "no %s found\n", o.kind.Plural)
		return nil
	}
	rows := [][]term.Cell{term.Header(o.kind.Head(o.output == kind.Wide)...)}
	for _, obj := range objects {
		rows = append(rows, o.row(obj))
	}
	term.NewTable(o.Out).Print(rows...)
	return nil
}

func (o *getOptions) table() bool { return o.output == "" || o.output == kind.Wide }

// fetch returns the named objects, or all that match the filters.
func (o *getOptions) fetch(ctx context.Context) ([]proto.Message, error) {
	if len(o.names) == 0 {
		return o.kind.List(ctx, o.app, o.Filter)
	}
	return o.kind.Named(ctx, o.app, o.names...)
}

func (o *getOptions) row(obj proto.Message) []term.Cell {
	row := o.kind.Row(obj, o.now())
	if o.output != kind.Wide {
		return row[:len(o.kind.Columns)]
	}
	return row
}

// follow shows the objects in one table, then every change as a row, until it is interrupted.
func (o *getOptions) follow(ctx context.Context) error {
	if len(o.names) == 1 {
		o.Name = o.names[0]
	}
	recv, err := o.kind.Watch(ctx, o.app, o.Filter)
	if err != nil {
		return err
	}
	t := term.NewTable(o.Out)
	t.Reserve(o.kind.Head(o.output == kind.Wide))
	last := map[string]string{} // row of each object
	first := [][]term.Cell{term.Header(o.kind.Head(o.output == kind.Wide)...)}
	for synced := false; ; {
		e, err := recv()
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case e.Type == api.WatchBookmark:
			if !synced && o.table() {
				t.Print(first...)
			}
			synced = true
			continue
		case len(o.names) > 0 && !slices.Contains(o.names, api.Meta(e.Object).GetName()):
			continue
		case !o.table():
			if err := kind.Print(o.Out, o.output, false, []proto.Message{e.Object}); err != nil {
				return err
			}
			continue
		}
		row := o.row(e.Object)
		if e.Type == api.WatchDeleted && !o.filtered() {
			row[1] = term.Cell{Text: "(gone)", Colour: term.Faint}
		}
		name, now := api.Meta(e.Object).GetName(), standing(row)
		if last[name] == now {
			continue
		}
		last[name] = now
		if synced {
			t.Print(row)
		} else {
			first = append(first, row)
		}
	}
}

// standing returns the text of a row without its clocks. If it is unchanged, no column shows a change.
func standing(row []term.Cell) string {
	var b strings.Builder
	for _, c := range row {
		if !c.Clock {
			b.WriteString(c.Text)
		}
		b.WriteByte('\t')
	}
	return b.String()
}

// filtered reports whether an object may leave the watch without being deleted. Then its row shows its current state.
func (o *getOptions) filtered() bool {
	return o.Selector != "" || len(o.Phases) > 0 || o.Node != "" || o.Owner != "" || o.Project != "" || o.State != ""
}

type describeOptions struct {
	*app
	objects []kind.Ref
}

func newDescribe(a *app) *cobra.Command {
	return command(&cobra.Command{
		Use: "describe KIND NAME... | describe KIND/NAME...", Short: "Show objects in full, with what happened to them",
		Long:              "Show projects, nodes, sources, volumes or tokens in full: what they are, what limits them, their conditions, and what happened to them.",
		Example:           "  caractrl describe project web\n  caractrl describe source/platform\n  caractrl describe volume shop.db",
		ValidArgsFunction: completion{a}.refs(func(k kind.Kind) bool { return k.Describe != nil }),
	}, &describeOptions{app: a})
}

func (o *describeOptions) parse(args []string) (err error) {
	if o.objects, err = kind.ParseRefs(args); err != nil {
		return err
	}
	for _, r := range o.objects {
		switch {
		case r.Kind.Describe == nil:
			return fmt.Errorf("%s cannot be described: get %s shows all there is", r.Kind.Plural, r.Kind.Plural)
		case r.Name == "":
			return fmt.Errorf("name the object: describe %s NAME", r.Kind.Lower())
		}
	}
	return nil
}

func (o *describeOptions) run(ctx context.Context) error {
	for i, r := range o.objects {
		if i > 0 {
			fmt.Fprintln(o.Out)
		}
		if err := (kind.Page{Out: o.Out, Now: o.now(), Conn: o.app}).Describe(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
