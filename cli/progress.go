package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// progress shows how far projects are while somebody waits for them. On a terminal it is a table with a line for each
// service that changes in place; elsewhere each step is a line of its own, once.
type progress struct {
	w             io.Writer
	live, colour  bool
	columns, rows int // of the terminal
	drawn         int // lines of the table on the terminal now
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, live: term.Movable(w), colour: term.Colourful(w), columns: 80, rows: 24}
	if columns, rows, ok := term.SizeOf(w); ok && p.live {
		p.columns, p.rows = columns, rows
	}
	return p
}

// show tells of new steps, or draws the projects as they are now.
func (p *progress) show(steps []string, projects map[string]*carav1.Project) {
	if !p.live {
		for _, step := range steps {
			fmt.Fprintln(p.w, step)
		}
		return
	}
	lines := p.table(projects)
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", p.drawn) // up to the first line of the table, then clear to the end
	}
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	p.drawn = len(lines)
	fmt.Fprint(p.w, b.String())
}

// table has a line for each service, projects that are not ready first, as many as fit the terminal.
func (p *progress) table(projects map[string]*carav1.Project) []string {
	var ready, rest [][]term.Cell
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		if projects[name] == nil {
			continue
		}
		for _, row := range serviceRows(projects[name]) {
			if row[1].Colour == term.Green {
				ready = append(ready, row)
			} else {
				rest = append(rest, row)
			}
		}
	}
	rows, hidden := append(rest, ready...), 0
	if most := max(p.rows-2, 1); len(rows) > most {
		rows, hidden = rows[:most], len(rows)-most
	}
	t := &term.Table{Colour: p.colour}
	t.Measure(rows)
	lines := make([]string, 0, len(rows)+1)
	for _, row := range rows {
		lines = append(lines, t.Format(fit(row, t.Widths, p.columns)))
	}
	if hidden > 0 {
		lines = append(lines, fmt.Sprintf("... and %s", term.Plural(hidden, "more service")))
	}
	return lines
}

// fit cuts the last cell, so that a row is one line of the terminal.
func fit(row []term.Cell, widths []int, columns int) []term.Cell {
	used := 0
	for _, w := range widths[:len(row)-1] {
		used += w + term.ColumnGap
	}
	last := &row[len(row)-1]
	if room := max(columns-used-1, 1); utf8.RuneCountInString(last.Text) > room {
		last.Text = term.Short(last.Text, room)
	}
	return row
}

// serviceRows are the services of a project: name, state, and what is to say about it. A project that has no service
// status yet is one row.
func serviceRows(p *carav1.Project) [][]term.Cell {
	name := term.Line(p.GetMetadata().GetName())
	_, why := kind.Telling(p)
	status := map[string]*carav1.ServiceStatus{}
	if p.GetStatus().GetObservedGeneration() >= p.GetMetadata().GetGeneration() {
		for _, s := range p.GetStatus().GetServices() {
			status[s.GetName()] = s
		}
	}
	if len(status) == 0 {
		return [][]term.Cell{{term.Text(name), {Text: term.Line(p.GetStatus().GetPhase()), Colour: term.Yellow}, {Text: term.Line(why)}}}
	}
	var rows [][]term.Cell
	for _, svc := range p.GetSpec().GetServices() {
		s := status[svc.GetName()]
		state, message := term.Line(s.GetState()), term.Line(s.GetMessage())
		if s.GetState() == api.ServiceRunning && s.GetHealth() != "" {
			state = term.Line(s.GetHealth())
		}
		colour := term.Yellow
		switch {
		case kind.ServiceReady(s):
			colour, message = term.Green, ""
		case s.GetState() == api.ServiceFailed || p.GetStatus().GetPhase() == api.PhaseFailed:
			colour = term.Red
		}
		rows = append(rows, []term.Cell{{Text: name + "/" + term.Line(svc.GetName())}, {Text: term.Dash(state), Colour: colour}, {Text: message}})
	}
	return rows
}
