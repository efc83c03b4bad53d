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
	found, err := r.Kind.Named(ctx, p.Conn, r.Name)
	if err != nil {
		return err
	}
	if err := r.Kind.Describe(ctx, p, found[0]); err != nil {
		return err
	}
	if r.Kind.Name == api.KindToken || r.Kind.Name == api.KindSession {
		return nil // they have no events
	}
	if err := p.events(ctx, r); err != nil {
		return err
	}
	if project, ok := found[0].(*carav1.Project); ok {
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

// table prints a section with a row for each item, with the first column indented; nothing if there are no items.
func table[T any](p Page, title string, head []string, items []T, row func(T) []term.Cell) {
	if len(items) == 0 {
		return
	}
	p.section(title)
	rows := [][]term.Cell{term.Header(head...)}
	for _, item := range items {
		rows = append(rows, row(item))
	}
	for _, row := range rows {
		row[0].Text = "  " + row[0].Text
	}
	term.NewTable(p.Out).Print(rows...)
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
	var long []*carav1.Condition
	table(p, "Conditions", []string{"TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"}, conditions, func(c *carav1.Condition) []term.Cell {
		message := c.Message
		if strings.Contains(strings.TrimSpace(message), "\n") {
			if len(long) == 0 || long[len(long)-1].Message != message {
				long = append(long, c)
			}
			message, _, _ = strings.Cut(message, "\n")
		}
		return []term.Cell{
			term.Text(c.Type), term.Text(c.Status), term.Text(c.Reason), term.Ago(p.Now, c.LastTransitionTime), term.Text(message),
		}
	})
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
	if len(events) == 0 {
		p.section("Events")
		fmt.Fprintln(p.Out, "  none")
	}
	events = events[max(0, len(events)-maxEvents):]
	table(p, "Events", []string{"LAST", "TYPE", "REASON", "COUNT", "ACTOR", "MESSAGE"}, events, func(e *carav1.Event) []term.Cell {
		return []term.Cell{
			term.Ago(p.Now, e.LastTime), term.Text(e.Type), term.Text(e.Reason), term.Count(e.Count), term.Text(e.Actor), term.Text(e.Message),
		}
	})
	return nil
}
