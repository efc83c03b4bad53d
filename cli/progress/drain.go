// Package progress decides what a person sees of a long operation, such as a drain, a move or a restore: it reads the events of a
// watch and says which step is new, when the operation has ended, and how. It does no I/O; the commands do.
package progress

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Drain holds the state of a node's drain. It decides what to show and does no I/O.
type Drain struct {
	node    string
	open    map[string]*carav1.Project // on the node, or moved but not running yet
	failed  map[string]bool            // stopped on the node, kept for their logs
	total   int
	shown   map[string]string
	seen    map[string]bool // of the objects that a watch starts with; nil once it has sent them all
	state   *carav1.Node
	Drained bool
}

// NewDrain follows the drain of a node.
func NewDrain(node string) *Drain {
	return &Drain{node: node, open: map[string]*carav1.Project{}, failed: map[string]bool{}, shown: map[string]string{}}
}

// Begin must be called before the first message of a watch, which starts with all objects.
func (d *Drain) Begin() { d.seen, d.state = map[string]bool{}, nil }

// Lost reports whether the loss of the server is new.
func (d *Drain) Lost() bool { return d.once("server", "gone") }

// once reports whether a text about something is new.
func (d *Drain) once(about, text string) bool {
	if d.shown[about] == text {
		return false
	}
	d.shown[about] = text
	return true
}

// Take reads one message of the watch and returns the lines to show. An error means that the drain will not end.
func (d *Drain) Take(m *carav1.WatchResponse) (steps []string, err error) {
	for _, c := range m.GetChanges() {
		switch o := api.Unwrap(c.GetObject()).(type) {
		case *carav1.Node:
			if o.GetMetadata().GetName() == d.node {
				d.state = o
				if c.GetDeleted() {
					d.state = nil
				}
			}
		case *carav1.Project:
			name := o.GetMetadata().GetName()
			if d.seen != nil {
				d.seen[name] = true
			}
			steps = append(steps, d.project(name, o, c.GetDeleted())...)
		}
	}
	if m.GetSynced() && d.seen != nil {
		steps = append(steps, d.complete()...)
	}
	if d.seen != nil {
		return steps, nil
	}
	return steps, d.judge(&steps)
}

// complete handles the end of a watch's initial objects: an open project that was not among them has been deleted.
func (d *Drain) complete() (steps []string) {
	seen := d.seen
	d.seen = nil
	for _, name := range slices.Sorted(maps.Keys(d.open)) {
		if !seen[name] {
			steps = append(steps, d.project(name, d.open[name], true)...)
		}
	}
	delete(d.shown, "server")
	if text := fmt.Sprintf("node/%s is being drained: %s to move", d.node, term.Plural(len(d.open), "project")); d.once("begun", "yes") {
		steps = append([]string{text}, steps...)
	}
	return steps
}

// judge decides from the node's state whether it is drained.
func (d *Drain) judge(steps *[]string) error {
	switch st := d.state.GetStatus(); {
	case d.state == nil:
		return fmt.Errorf("node %q was deleted meanwhile", d.node)
	case !d.state.GetSpec().GetDraining():
		return fmt.Errorf("node %q is not draining any more: somebody ended the drain; %s", d.node, d.left())
	case st.GetState() == api.NodeNotReady:
		if d.once("node", api.NodeNotReady) {
			*steps = append(*steps, fmt.Sprintf("node/%s does not answer: projects without data on it move when their rescheduleAfter is over", d.node))
		}
		d.Drained = len(d.open) == 0 // its agent cannot confirm it; see notes
	default:
		delete(d.shown, "node")
		d.Drained = api.IsTrue(st.GetConditions(), api.CondDrained)
	}
	return nil
}

// project reads the state of one project.
func (d *Drain) project(name string, p *carav1.Project, deleted bool) []string {
	st := p.GetStatus()
	there := st.GetNodeRef() == d.node
	stopped := st.GetPhase() == api.PhaseFailed || st.GetPhase() == api.PhaseTerminated
	if delete(d.failed, name); there && st.GetPhase() == api.PhaseFailed && !deleted {
		d.failed[name] = true
	}
	_, known := d.open[name]
	if !deleted && (there && !stopped || st.GetMovedFrom() == d.node) {
		if d.open[name] = p; !known {
			d.total++
		}
		return d.waits(name, p)
	}
	if !known {
		return nil
	}
	delete(d.open, name)
	return []string{fmt.Sprintf("project/%s %s (%d of %d)", term.Line(name), howItLeft(p, deleted), d.total-len(d.open), d.total)}
}

// howItLeft says where a project is that no longer runs on the node.
func howItLeft(p *carav1.Project, deleted bool) string {
	reason, message := api.Telling(p)
	st := p.GetStatus()
	switch {
	case deleted || st.GetPhase() == api.PhaseTerminating || st.GetPhase() == api.PhaseTerminated:
		return "deleted"
	case st.GetPhase() == api.PhaseFailed:
		return fmt.Sprintf("failed on %s: %s: %s", term.Line(st.GetNodeRef()), term.Line(reason), term.Line(message))
	}
	return "moved to " + term.Line(st.GetNodeRef())
}

// waits returns what an open project waits for, if that is worth a message.
func (d *Drain) waits(name string, p *carav1.Project) []string {
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled)
	if m := p.GetStatus().GetMove(); m != nil && p.GetStatus().GetNodeRef() == d.node {
		return d.moves(name, p, m)
	}
	stuck := p.GetStatus().GetPhase() == api.PhasePending || p.GetStatus().GetNodeRef() == d.node && c.GetReason() == api.ReasonNodeDraining
	if !stuck {
		delete(d.shown, "project/"+name)
		return nil
	}
	text := fmt.Sprintf("project/%s waits: %s", term.Line(name), term.Line(c.GetMessage()))
	if !d.once("project/"+name, text) {
		return nil
	}
	return []string{text}
}

// moves returns the step of a project whose data is being copied, once.
func (d *Drain) moves(name string, p *carav1.Project, m *carav1.Move) []string {
	_, message := api.Telling(p)
	text := fmt.Sprintf("project/%s moves to %s with its data: %s", term.Line(name), term.Line(m.GetTo()), m.GetStep())
	if m.GetRestore() != nil {
		text = fmt.Sprintf("project/%s is being restored: %s", term.Line(name), m.GetStep())
	}
	if !d.once("project/"+name, text) {
		return nil
	}
	if message != "" {
		text += ": " + term.Line(message)
	}
	return []string{text}
}

const maxNamed = 10

// left returns how many projects must still move, with the first names.
func (d *Drain) left() string {
	names := slices.Sorted(maps.Keys(d.open))
	text := fmt.Sprintf("%d of %s to move", len(names), term.Plural(d.total, "project"))
	if more := len(names) - maxNamed; more > 0 {
		names = append(names[:maxNamed], fmt.Sprintf("%d more", more))
	}
	if len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	return text
}

// Remains describes a drain that continues after this command ends.
func (d *Drain) Remains() string {
	lines := []string{fmt.Sprintf("node %s stays draining, %s", d.node, d.left())}
	for _, name := range slices.Sorted(maps.Keys(d.open)) {
		p := d.open[name]
		if why := d.shown["project/"+name]; why != "" {
			lines = append(lines, why)
		} else if node := p.GetStatus().GetNodeRef(); node != d.node {
			_, message := api.Telling(p)
			lines = append(lines, strings.TrimSuffix(fmt.Sprintf("project/%s is %s on %s: %s", term.Line(name), term.Line(p.GetStatus().GetPhase()), term.Line(node), term.Line(message)), ": "))
		}
	}
	lines = append(lines, fmt.Sprintf("caractrl drain %s watches it again, caractrl uncordon %s ends it", d.node, d.node))
	return strings.Join(lines, "\n       ") // aligned with the first line, which begins with "error: "
}

// Notes returns other facts about a drained node.
func (d *Drain) Notes() (notes []string) {
	if d.state.GetStatus().GetState() == api.NodeNotReady {
		notes = append(notes, fmt.Sprintf("node/%s does not answer: nothing is assigned to it, but its containers may still run until it comes back", d.node))
	}
	for _, name := range slices.Sorted(maps.Keys(d.failed)) {
		notes = append(notes, fmt.Sprintf("project/%s has failed and stays on %s, stopped, for its logs: delete it, or caractrl retry %s to have it elsewhere",
			term.Line(name), d.node, term.Line(name)))
	}
	return notes
}
