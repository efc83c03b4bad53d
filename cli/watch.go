package cli

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
)

// watchKind shows what there is in one table, then every change as a row of its own, until it is interrupted.
func (a *app) watchKind(ctx context.Context, conn grpc.ClientConnInterface, o getOptions) error {
	if len(o.names) == 1 {
		o.Name = o.names[0]
	}
	recv, err := o.kind.Watch(ctx, conn, o.Filter)
	if err != nil {
		return err
	}
	t := term.NewTable(a.Out)
	t.Reserve(o.kind.Head(o.output == wide))
	last := map[string]string{} // what was shown of each object
	first := [][]term.Cell{term.Header(o.kind.Head(o.output == wide)...)}
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
			if err := printObjects(a.Out, o.output, false, []proto.Message{e.Object}); err != nil {
				return err
			}
			continue
		}
		row := a.row(o, e.Object)
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

// standing is what a row says apart from the time. A change that no column shows leaves it as it is.
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

// filtered tells whether an object may leave the watch without being gone: it then shows as it is now.
func (o getOptions) filtered() bool {
	return o.Selector != "" || len(o.Phases) > 0 || o.Node != "" || o.Owner != ""
}
