package scheduler

import (
	"cmp"
	"slices"
)

// Resident is a project on a draining node.
type Resident struct {
	Demand
	// Running ones go first: another may never come up where it goes, and would keep them from leaving.
	Running bool
	// Stays is why it must not leave, wherever there is room; empty if it may.
	Stays string
}

// Departure is what a draining node decides of one resident: where it goes, or why it stays.
type Departure struct {
	Project string
	// Node is where it goes; empty if it stays, and Why says so.
	Node string
	Why  string
}

// Leave decides which residents of a draining node go now. underway are those that have left and do not run elsewhere
// yet: with them no more than parallel are without a home at a time. A resident that fits nowhere stays, says why and
// holds nobody up. Each that goes counts where it goes before the next is placed. It is a pure function; those that are
// not named wait for their turn.
func Leave(residents []Resident, underway, parallel int, nodes []*Candidate, how Strategy) []Departure {
	residents = slices.Clone(residents)
	slices.SortFunc(residents, func(a, b Resident) int {
		if a.Running != b.Running {
			return map[bool]int{true: -1, false: 1}[a.Running]
		}
		return cmp.Compare(a.Project, b.Project)
	})
	room := make([]*Candidate, len(nodes))
	for i, c := range nodes {
		copied := *c
		room[i] = &copied
	}
	var out []Departure
	for _, r := range residents {
		if underway >= max(1, parallel) {
			break
		}
		if r.Stays != "" {
			out = append(out, Departure{Project: r.Project, Why: r.Stays})
			continue
		}
		v := Place(r.Demand, room, how)
		if v.Node == "" {
			out = append(out, Departure{Project: r.Project, Why: v.Explain()})
			continue
		}
		underway++
		out = append(out, Departure{Project: r.Project, Node: v.Node})
		to := room[slices.IndexFunc(room, func(c *Candidate) bool { return c.Name == v.Node })]
		to.UsedCPU, to.UsedMemory, to.UsedSubnets, to.Projects = to.UsedCPU+r.CPU, to.UsedMemory+r.Memory, to.UsedSubnets+1, to.Projects+1
	}
	return out
}
