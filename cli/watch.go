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
		o.name = o.names[0]
	}
	recv, err := o.kind.watch(ctx, conn, o.filter)
	if err != nil {
		return err
	}
	t := term.NewTable(a.Out)
	t.Reserve(o.kind.head(o.output == wide))
	last := map[string]string{} // what was shown of each object
	first := [][]term.Cell{term.Header(o.kind.head(o.output == wide)...)}
	for synced := false; ; {
		e, err := recv()
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case e.typ == api.WatchBookmark:
			if !synced && o.table() {
				t.Print(first...)
			}
			synced = true
			continue
		case len(o.names) > 0 && !slices.Contains(o.names, api.Meta(e.object).GetName()):
			continue
		case !o.table():
			if err := printObjects(a.Out, o.output, false, []proto.Message{e.object}); err != nil {
				return err
			}
			continue
		}
		row := a.row(o, e.object)
		if e.typ == api.WatchDeleted && !o.filtered() {
			row[1] = term.Cell{Text: "(gone)", Colour: term.Faint}
		}
		name, now := api.Meta(e.object).GetName(), standing(row)
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
	return o.selector != "" || len(o.phases) > 0 || o.node != "" || o.owner != ""
}
