package scheduler

import (
	"cmp"
	"slices"
)

// Resident is a project on a draining node.
type Resident struct {
	Demand
	// Running projects move first. A project that is not running may never start on its new node, and would block the others.
	Running bool
	// Stays is why the project must stay even if another node has room. Empty if it may move.
	Stays string
}

// Departure is the decision about one resident: its new node, or why it stays.
type Departure struct {
	Project string
	// Node is the new node. If it is empty, the project stays because of Why.
	Node string
	Why  string
}

// Leave decides which residents of a draining node move now. underway is the number of projects that have left and do not
// run elsewhere yet; at most parallel projects may be in that state. A resident that fits on no other node stays and blocks
// nobody. Each move counts on its new node before the next project is placed. Residents missing from the result wait for
// their turn. Leave is a pure function.
func Leave(residents []Resident, underway, parallel int, nodes []*Candidate, how Strategy) []Departure {
	residents = slices.SortedFunc(slices.Values(residents), runningFirst)
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

func runningFirst(a, b Resident) int {
	if a.Running != b.Running {
		return map[bool]int{true: -1, false: 1}[a.Running]
	}
	return cmp.Compare(a.Project, b.Project)
}
