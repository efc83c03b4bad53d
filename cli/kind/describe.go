package kind

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Page is the output for the description of an object.
type Page struct {
	Out  io.Writer
	Now  time.Time
	Conn grpc.ClientConnInterface // for requests about related objects
}

// Describe fetches an object and prints its details and its last events.
func (p Page) Describe(ctx context.Context, r Ref) error {
	obj, err := r.Kind.Get(ctx, p.Conn, r.Name)
	if err != nil {
		return err
	}
	if err := r.Kind.Describe(ctx, p, obj); err != nil {
		return err
	}
	if r.Kind.Name == api.KindToken || r.Kind.Name == api.KindSession {
		return nil // they have no events
	}
	if err := p.events(ctx, r); err != nil {
		return err
	}
	if project, ok := obj.(*carav1.Project); ok {
		p.urls(project)
	}
	return nil
}

// Field prints one aligned line; nothing if the value is empty.
func (p Page) Field(name, value string) {
	if value = term.Line(value); value != "" && value != "-" {
		fmt.Fprintf(p.Out, "%-12s %s\n", name+":", value)
	}
}

func (p Page) section(title string) { fmt.Fprintf(p.Out, "\n%s:\n", title) }

// table prints rows, with the first column indented.
func (p Page) table(head []string, rows [][]term.Cell) {
	if len(rows) == 0 {
		return
	}
	for _, row := range rows {
		row[0].Text = "  " + row[0].Text
	}
	head[0] = "  " + head[0]
	term.NewTable(p.Out).Print(append([][]term.Cell{term.Header(head...)}, rows...)...)
}

func (p Page) meta(m *carav1.ObjectMeta) {
	p.Field("Name", m.GetName())
	p.Field("Labels", Pairs(m.GetLabels()))
	p.Field("Annotations", Pairs(m.GetAnnotations()))
	p.Field("Owner", m.GetOwner())
	if m.GetOrigin().GetFile() != "" {
		p.Field("Origin", Provenance(m))
	}
	p.Field("Age", term.Since(p.Now, m.GetCreationTimestamp()).Text)
}

// Provenance returns where a project comes from: its owner, and the place of its manifest.
func Provenance(meta *carav1.ObjectMeta) string {
	if o := meta.GetOrigin(); o.GetFile() != "" {
		return fmt.Sprintf("%s, %s:%d at %s", meta.GetOwner(), o.File, o.Line, api.ShortRevision(o.Revision))
	}
	return meta.GetOwner()
}

// limit joins a list of patterns. An empty list returns otherwise.
func limit(patterns []string, otherwise string) string {
	return cmp.Or(strings.Join(patterns, ", "), otherwise)
}

func (p Page) conditions(conditions []*carav1.Condition) {
	if len(conditions) == 0 {
		return
	}
	p.section("Conditions")
	var rows [][]term.Cell
	var long []*carav1.Condition
	for _, c := range conditions {
		message := c.Message
		if strings.Contains(strings.TrimSpace(message), "\n") {
			if len(long) == 0 || long[len(long)-1].Message != message {
				long = append(long, c)
			}
			message, _, _ = strings.Cut(message, "\n")
		}
		rows = append(rows, []term.Cell{
			term.Text(c.Type), term.Text(c.Status), term.Text(c.Reason), term.Ago(p.Now, c.LastTransitionTime), term.Text(message),
		})
	}
	p.table([]string{"TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"}, rows)
	for _, c := range long { // such as the last lines of a log
		fmt.Fprintf(p.Out, "\n  %s %s:\n", term.Clean(c.Type), term.Clean(c.Reason))
		for l := range strings.Lines(term.Clean(c.Message)) {
			fmt.Fprintf(p.Out, "    %s\n", strings.TrimRight(l, "\n"))
		}
	}
}

// maxEvents is how many events a description shows.
const maxEvents = 20

// events shows the last events of an object, newest last.
func (p Page) events(ctx context.Context, r Ref) error {
	l, err := carav1.NewEventServiceClient(p.Conn).ListEvents(ctx, &carav1.ListEventsRequest{Kind: r.Kind.Name, Name: r.Name})
	if err != nil {
		return err
	}
	events := ByLastTime(l.Items)
	p.section("Events")
	if len(events) == 0 {
		fmt.Fprintln(p.Out, "  none")
		return nil
	}
	var rows [][]term.Cell
	for _, e := range events[max(0, len(events)-maxEvents):] {
		rows = append(rows, []term.Cell{
			term.Ago(p.Now, e.LastTime), term.Text(e.Type), term.Text(e.Reason), term.Count(e.Count), term.Text(e.Actor), term.Text(e.Message),
		})
	}
	p.table([]string{"LAST", "TYPE", "REASON", "COUNT", "ACTOR", "MESSAGE"}, rows)
	return nil
}
