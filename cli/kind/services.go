package kind

import (
	"maps"
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ServiceRows returns a row for each service of the projects; services that are not ready come first.
func ServiceRows(projects map[string]*carav1.Project) [][]term.Cell {
	var ready, rest [][]term.Cell
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		for _, row := range servicesOf(projects[name]) {
			if row[1].Colour == term.Green {
				ready = append(ready, row)
			} else {
				rest = append(rest, row)
			}
		}
	}
	return append(rest, ready...)
}

// servicesOf returns a row for each service of a project: name, state and message. A project without a status for its
// newest generation has one row.
func servicesOf(p *carav1.Project) [][]term.Cell {
	name := term.Line(p.GetMetadata().GetName())
	status := map[string]*carav1.ServiceStatus{}
	if p.GetStatus().GetObservedGeneration() >= p.GetMetadata().GetGeneration() {
		for _, s := range p.GetStatus().GetServices() {
			status[s.GetName()] = s
		}
	}
	if len(status) == 0 {
		_, why := api.Telling(p)
		return [][]term.Cell{{term.Text(name), {Text: term.Line(p.GetStatus().GetPhase()), Colour: term.Yellow}, {Text: term.Line(why)}}}
	}
	var rows [][]term.Cell
	for _, want := range p.GetSpec().GetServices() {
		s := status[want.GetName()]
		state, message := term.Line(s.GetState()), term.Line(s.GetMessage())
		if s.GetState() == api.ServiceRunning && s.GetHealth() != "" {
			state = term.Line(s.GetHealth())
		}
		colour := term.Yellow
		switch {
		case api.ServiceReady(s):
			colour, message = term.Green, ""
		case s.GetState() == api.ServiceFailed || p.GetStatus().GetPhase() == api.PhaseFailed:
			colour = term.Red
		}
		rows = append(rows, []term.Cell{{Text: name + "/" + term.Line(want.GetName())}, {Text: term.Dash(state), Colour: colour}, {Text: message}})
	}
	return rows
}
