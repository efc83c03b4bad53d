package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/caravanserai/cara/api"
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
	p := &progress{w: w, live: movable(w), colour: colourful(w), columns: 80, rows: 24}
	if f, ok := w.(*os.File); ok && p.live {
		if columns, rows, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 && rows > 0 {
			p.columns, p.rows = columns, rows
		}
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
	var ready, rest [][]cell
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		if projects[name] == nil {
			continue
		}
		for _, row := range serviceRows(projects[name]) {
			if row[1].colour == green {
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
	t := &table{colour: p.colour}
	t.measure(rows)
	lines := make([]string, 0, len(rows)+1)
	for _, row := range rows {
		lines = append(lines, t.format(fit(row, t.widths, p.columns)))
	}
	if hidden > 0 {
		lines = append(lines, fmt.Sprintf("... and %s", plural(hidden, "more service")))
	}
	return lines
}

// fit cuts the last cell, so that a row is one line of the terminal.
func fit(row []cell, widths []int, columns int) []cell {
	used := 0
	for _, w := range widths[:len(row)-1] {
		used += w + columnGap
	}
	last := &row[len(row)-1]
	if room := max(columns-used-1, 1); utf8.RuneCountInString(last.text) > room {
		last.text = short(last.text, room)
	}
	return row
}

// serviceRows are the services of a project: name, state, and what is to say about it. A project that has no service
// status yet is one row.
func serviceRows(p *carav1.Project) [][]cell {
	name := line(p.GetMetadata().GetName())
	_, why := telling(p)
	status := map[string]*carav1.ServiceStatus{}
	if p.GetStatus().GetObservedGeneration() >= p.GetMetadata().GetGeneration() {
		for _, s := range p.GetStatus().GetServices() {
			status[s.GetName()] = s
		}
	}
	if len(status) == 0 {
		return [][]cell{{text(name), {text: line(p.GetStatus().GetPhase()), colour: yellow}, {text: line(why)}}}
	}
	var rows [][]cell
	for _, svc := range p.GetSpec().GetServices() {
		s := status[svc.GetName()]
		state, message := line(s.GetState()), line(s.GetMessage())
		if s.GetState() == api.ServiceRunning && s.GetHealth() != "" {
			state = line(s.GetHealth())
		}
		colour := yellow
		switch {
		case serviceReady(s):
			colour, message = green, ""
		case s.GetState() == api.ServiceFailed || p.GetStatus().GetPhase() == api.PhaseFailed:
			colour = red
		}
		rows = append(rows, []cell{{text: name + "/" + line(svc.GetName())}, {text: dash(state), colour: colour}, {text: message}})
	}
	return rows
}
