package scheduler

import (
	"fmt"
	"maps"
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ledger tracks what each node holds. It is updated incrementally, so its cost depends on what changed. The Scheduler's
// mutex guards it.
type ledger struct {
	projects map[string]*carav1.Project // all projects of the mirror
	nodes    map[string]*Candidate
	order    []*Candidate // the same nodes, as a list for Place
	// placed is what the cluster shows. reserved holds decisions that the mirror does not show yet; they take precedence.
	placed, reserved map[string]placement
	on               map[string]map[string]bool // projects by node, from placed
	// from holds the previous node of each project that was moved and does not run yet; away is its inverse. drains holds the
	// draining nodes.
	from   map[string]string
	away   map[string]map[string]bool
	drains map[string]bool
}

// placement is what one project uses on one node.
type placement struct {
	node                           string
	to                             string // the node that the project's data is copied to, where it counts, too
	stopped                        bool   // on node it has only its network
	cpu, memory, subnets, projects int64
	revision                       int64 // of a reservation: dropped when the mirror shows it; 0 while in flight
}

func newLedger() *ledger {
	return &ledger{
		projects: map[string]*carav1.Project{}, nodes: map[string]*Candidate{}, placed: map[string]placement{}, reserved: map[string]placement{},
		on: map[string]map[string]bool{}, from: map[string]string{}, away: map[string]map[string]bool{}, drains: map[string]bool{},
	}
}

func demand(p *carav1.Project) (Demand, error) {
	d := Demand{
		Project: p.GetMetadata().GetName(), Selector: p.GetSpec().GetNodeSelector(), Capabilities: api.ExtraCapabilities(p.GetSpec()),
		Data: dataOf(p), Backup: p.GetSpec().GetBackup() != nil,
		Features: api.ProjectFeatures(p.GetSpec()),
	}
	for _, v := range api.HostVolumes(p.GetSpec()) {
		d.HostVolumes = append(d.HostVolumes, v.GetHost())
	}
	for _, s := range p.GetSpec().GetServices() {
		cpu, err := quantity(s.GetResources().GetRequests().GetCpu(), syntax.MilliCPU)
		if err != nil {
			return d, fmt.Errorf("service %s: cpu request: %w", s.GetName(), err)
		}
		memory, err := quantity(s.GetResources().GetRequests().GetMemory(), syntax.Bytes)
		if err != nil {
			return d, fmt.Errorf("service %s: memory request: %w", s.GetName(), err)
		}
		d.CPU, d.Memory = d.CPU+cpu, d.Memory+memory
	}
	return d, nil
}

func quantity(text string, parse func(string) (int64, error)) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return parse(text)
}

// setNode adds or updates a node, or removes it if n is nil.
func (l *ledger) setNode(name string, n *carav1.Node) {
	c := l.nodes[name]
	if delete(l.drains, name); n.GetSpec().GetDraining() {
		l.drains[name] = true
	}
	if n == nil {
		delete(l.nodes, name)
		l.order = slices.DeleteFunc(l.order, func(o *Candidate) bool { return o == c })
		return
	}
	if c == nil {
		c = l.addNode(name)
	}
	c.Labels, c.Unfit = n.GetMetadata().GetLabels(), unfit(n)
	c.Receives, c.Restores = receives(n), restores(n)
	c.Capabilities, c.HostVolumes = n.GetStatus().GetInfo().GetAllowedCapabilities(), n.GetStatus().GetInfo().GetHostVolumes()
	c.Features = n.GetStatus().GetInfo().GetFeatures()
	capacity := n.GetStatus().GetInfo().GetCapacity()
	c.CPU, _ = quantity(capacity.GetCpu(), syntax.MilliCPU) // a quantity that does not parse is ignored
	c.Memory, _ = quantity(capacity.GetMemory(), syntax.Bytes)
	c.Subnets = int64(capacity.GetSubnets())
}

// addNode starts to count a node, including what is already on it.
func (l *ledger) addNode(name string) *Candidate {
	c := &Candidate{Name: name}
	l.nodes[name] = c
	l.order = append(l.order, c)
	for project := range l.on[name] {
		if h := l.effective(project); h.on(name) {
			l.countOn(name, h, +1)
		}
	}
	for project, r := range l.reserved {
		if r.on(name) && !l.on[name][project] {
			l.countOn(name, r, +1)
		}
	}
	return c
}

// on reports whether a placement counts on a node.
func (h placement) on(node string) bool { return h.node == node || h.to == node }

// at returns what of a placement counts on one of its nodes.
func (h placement) at(node string) placement {
	if h.stopped && node == h.node {
		h.cpu, h.memory, h.projects = 0, 0, 0
	}
	return h
}

// unfit returns why a node takes no new projects.
func unfit(n *carav1.Node) Why {
	st := n.GetStatus()
	says := func(typ, status string) bool { return api.FindCondition(st.GetConditions(), typ).GetStatus() == status }
	switch {
	case st.GetState() == api.NodeNotReady || st.GetState() == "":
		return NotReady
	case says(api.CondEngineReady, api.StatusFalse):
		return EngineDown
	case n.GetSpec().GetDraining():
		return Draining
	case n.GetSpec().GetUnschedulable():
		return Cordoned
	case says(api.CondDiskPressure, api.StatusTrue):
		return DiskPressure
	case says(api.CondMemoryPressure, api.StatusTrue):
		return MemoryPressure
	}
	return Fits
}

// setProject updates a project as of a revision, or removes it if p is nil. It reports whether room became free.
func (l *ledger) setProject(name string, p *carav1.Project, revision int64) (freed bool) {
	if r, ok := l.reserved[name]; ok && (p == nil || r.revision > 0 && revision >= r.revision) {
		l.drop(name)
	}
	if l.projects[name] = p; p == nil {
		delete(l.projects, name)
	}
	l.setFrom(name, p.GetStatus().GetMovedFrom())
	old, next := l.placed[name], holding(p)
	if old == next {
		return false
	}
	l.count(l.effective(name), -1)
	l.place(name, old, next)
	l.count(l.effective(name), +1)
	return old.node != "" && (next.node != old.node || next.to != old.to || next.cpu < old.cpu || next.memory < old.memory)
}

// place updates the placement of a project and the projects of its nodes.
func (l *ledger) place(project string, old, next placement) {
	delete(l.on[old.node], project)
	delete(l.on[old.to], project)
	delete(l.placed, project)
	if next.node == "" {
		return
	}
	l.placed[project] = next
	for _, node := range []string{next.node, next.to} {
		if l.on[node] == nil {
			l.on[node] = map[string]bool{}
		}
		l.on[node][project] = true
	}
	delete(l.on, "")
}

// setFrom records which node a project is moving away from.
func (l *ledger) setFrom(project, node string) {
	old := l.from[project]
	if old == node {
		return
	}
	delete(l.from, project)
	if delete(l.away[old], project); len(l.away[old]) == 0 {
		delete(l.away, old)
	}
	if node == "" {
		return
	}
	l.from[project] = node
	if l.away[node] == nil {
		l.away[node] = map[string]bool{}
	}
	l.away[node][project] = true
}

// holding returns what a project uses on its node. A Failed project keeps only its network. A project that is being restored
// counts as if it ran, and on its next node, too.
func holding(p *carav1.Project) placement {
	st, m := p.GetStatus(), p.GetStatus().GetMove()
	node, restoring := st.GetNodeRef(), restoring(p)
	if node == "" && restoring {
		node = m.GetTo()
	} else if st.GetPhase() == api.PhasePending {
		node = ""
	}
	if node == "" || st.GetPhase() == api.PhaseTerminated {
		return placement{}
	}
	h := placement{node: node, subnets: 1}
	if m.GetStep() == api.MoveCopying || m.GetStep() == api.MoveSwitching || restoring && m.GetTo() != node {
		h.to = m.GetTo()
	}
	h.stopped = st.GetPhase() == api.PhaseFailed && h.to != ""
	if st.GetPhase() == api.PhaseFailed && !restoring {
		return h
	}
	h.projects = 1
	if d, err := demand(p); err == nil { // a stored spec was validated before
		h.cpu, h.memory = d.CPU, d.Memory
	}
	return h
}

// effective returns the reservation of a project if it has one, otherwise its placement.
func (l *ledger) effective(project string) placement {
	if r, ok := l.reserved[project]; ok {
		return r
	}
	return l.placed[project]
}

// count adds a placement to its nodes, or subtracts it.
func (l *ledger) count(h placement, sign int64) {
	l.countOn(h.node, h, sign)
	if h.to != h.node {
		l.countOn(h.to, h, sign)
	}
}

func (l *ledger) countOn(node string, h placement, sign int64) {
	c := l.nodes[node]
	if c == nil {
		return
	}
	h = h.at(node)
	c.UsedCPU += sign * h.cpu
	c.UsedMemory += sign * h.memory
	c.UsedSubnets += sign * h.subnets
	c.Projects += sign * h.projects
}

// reserve counts a decision before the watch reports its commit.
func (l *ledger) reserve(d Demand, node string) { l.reservePlacement(d, placement{node: node}) }

// reservePlacement counts a decision with the nodes of a placement.
func (l *ledger) reservePlacement(d Demand, r placement) {
	l.count(l.effective(d.Project), -1)
	r.cpu, r.memory, r.subnets, r.projects = d.CPU, d.Memory, 1, 1
	l.reserved[d.Project] = r
	l.count(r, +1)
}

// settle keeps a reservation until the mirror shows the revision of its commit.
func (l *ledger) settle(project string, revision int64) {
	if r, ok := l.reserved[project]; ok {
		r.revision = revision
		l.reserved[project] = r
	}
}

func (l *ledger) drop(project string) {
	if _, ok := l.reserved[project]; !ok {
		return
	}
	l.count(l.effective(project), -1)
	delete(l.reserved, project)
	l.count(l.effective(project), +1)
}

func (l *ledger) projectsOn(node string) []string {
	return slices.Collect(maps.Keys(l.on[node]))
}
