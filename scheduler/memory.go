package scheduler

import (
	"fmt"
	"sync"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// memory is what the Scheduler knows between two passes. All of it follows from the projects and the nodes, except for the
// decisions that the mirror does not show yet, so a restart loses nothing. Its methods are called with mu held.
type memory struct {
	mu      sync.Mutex
	ledger  *ledger
	waiting map[string]bool // projects that fit on no node
	// attempts holds the projects whose last move failed, and restores those whose last restore failed. asked holds the moves
	// and restores that the scheduler has requested and that the mirror does not show yet, with the revision of the request.
	attempts map[string]attempt
	restores map[string]attempt
	asked    map[string]int64
	// turns holds when each node became Ready or NotReady. For a lost node that is when it was lost.
	turns map[string]turn
	// disrupted is true while all nodes are lost. resumed is when the first node returned after that.
	disrupted bool
	resumed   time.Time
}

func newMemory() memory {
	return memory{
		ledger: newLedger(), waiting: map[string]bool{}, attempts: map[string]attempt{}, restores: map[string]attempt{}, asked: map[string]int64{},
		turns: map[string]turn{},
	}
}

// turn is when a node became Ready or NotReady.
type turn struct {
	stored time.Time // as the server that noticed it wrote it, by its clock
	at     time.Time // by this program's clock, which nobody can set
}

// noteNode records when a node became Ready or NotReady. It trusts the time of day only once, when it first sees that: whoever sets the
// clock later does not change how long ago that was. n is nil if the node was deleted.
func (m *memory) noteNode(name string, n *carav1.Node, now time.Time) {
	stored := lostAt(n)
	switch {
	case stored == nil:
		delete(m.turns, name)
	case !m.turns[name].stored.Equal(stored.AsTime()):
		m.turns[name] = turn{stored.AsTime(), now.Add(-max(0, now.Sub(stored.AsTime())))}
	}
}

// heardAgain records when the first node returns after all were lost. From then on, each of the other nodes has as long to
// return as its projects wait for a lost node.
func (m *memory) heardAgain(now time.Time) {
	lost := allLost(m.ledger.order)
	if m.disrupted && !lost {
		m.resumed = now
	}
	m.disrupted = lost
}

// noteMove records how the last move and the last restore of a project ended.
func (m *memory) noteMove(name string, p *carav1.Project) {
	if revision, ok := m.asked[name]; ok && (p == nil || api.RevisionOf(p) >= revision) {
		delete(m.asked, name)
	}
	noteAttempt(m.attempts, name, api.FindCondition(p.GetStatus().GetConditions(), api.CondMoving), p == nil)
	noteAttempt(m.restores, name, api.FindCondition(p.GetStatus().GetConditions(), api.CondRestoring), p == nil)
}

// staysForNow returns why a drain does not move a project with its data now; empty if it does.
func (m *memory) staysForNow(d *Demand) string {
	if len(d.Data) > 1 {
		return d.scattered()
	}
	a, ok := m.attempts[d.Project]
	if !ok || !a.due().After(time.Now()) {
		return ""
	}
	return fmt.Sprintf("%s; the drain tries again at %s", a.why, a.due().UTC().Format(time.RFC3339))
}

// chooseRestore returns the node of a requested restore, or why there is none.
func (m *memory) chooseRestore(d Demand, to string, how Strategy) (node, why string) {
	nodes := m.ledger.orderWithout(d.Project)
	if to == "" {
		v := Place(d, nodes, how)
		if v.Node == "" {
			return "", v.Explain()
		}
		return v.Node, ""
	}
	return to, Admit(d, to, nodes)
}

// misfit returns why a project would not fit its node if it were placed there now. A node that takes no new projects at the
// moment may still keep those that it has.
func (m *memory) misfit(p *carav1.Project, c *Candidate) Why {
	d, err := demand(p)
	if err != nil || c == nil {
		return Fits
	}
	at := *c
	at.Unfit = Fits
	held := m.ledger.effective(d.Project)
	at.UsedCPU, at.UsedMemory, at.UsedSubnets = at.UsedCPU-held.cpu, at.UsedMemory-held.memory, at.UsedSubnets-held.subnets
	return filter(&d, &at)
}

// drainsOf returns the draining nodes that a changed project was or is on, or is moving away from.
func (m *memory) drainsOf(c loop.Change) []string {
	var nodes []string
	for _, version := range []any{c.Old, c.New} {
		p, _ := version.(*carav1.Project)
		for _, node := range []string{p.GetStatus().GetNodeRef(), p.GetStatus().GetMovedFrom()} {
			if m.ledger.drains[node] {
				nodes = append(nodes, node)
			}
		}
	}
	return nodes
}

// occupants reads the projects from the ledger.
func (m *memory) occupants(node string, moveData bool) *occupants {
	o := &occupants{projects: map[string]*carav1.Project{}, demands: map[string]Demand{}}
	for _, names := range []map[string]bool{m.ledger.on[node], m.ledger.away[node]} {
		for name := range names {
			p, ok := m.ledger.projects[name]
			if _, seen := o.projects[name]; seen || !ok {
				continue
			}
			o.projects[name] = p
			m.occupant(o, p, node, moveData)
		}
	}
	return o
}

// occupant counts a project among the occupants of a node.
func (m *memory) occupant(o *occupants, p *carav1.Project, node string, moveData bool) {
	name, st := p.GetMetadata().GetName(), p.GetStatus()
	r, reserved := m.ledger.reserved[name]
	reserved = reserved && (r.revision == 0 || m.decided(p))
	_, asked := m.asked[name]
	switch phase := st.GetPhase(); {
	case st.GetNodeRef() == node && (asked || st.GetMove() != nil && phase != api.PhaseTerminating):
		o.underway++ // its data is being copied
	case reserved && r.node != node && st.GetNodeRef() == node:
		o.underway++ // its move is decided, and the watch has not reported it
	case st.GetNodeRef() != node:
		if st.GetMovedFrom() == node {
			o.underway++
		}
	case phase == api.PhaseTerminating:
		o.ending++
	case phase == api.PhaseFailed:
		o.failed++
	case phase == api.PhaseScheduled || phase == api.PhaseRunning:
		r := m.resident(p, node, moveData)
		o.demands[name] = r.Demand
		o.residents = append(o.residents, r)
	}
}

// resident describes a project that runs or starts on a draining node.
func (m *memory) resident(p *carav1.Project, node string, moveData bool) Resident {
	d, err := demand(p)
	if err != nil { // a stored spec was valid when it was accepted
		d = Demand{Project: p.GetMetadata().GetName()}
	}
	r := Resident{Demand: d, Running: p.GetStatus().GetPhase() == api.PhaseRunning, Stays: d.bound(node)}
	if moveData && r.Stays != "" {
		r.Stays = m.staysForNow(&d)
		r.Demand = d.moved()
	}
	if r.Stays == "" && api.UpdateFailed(p) {
		r.Stays = staysUpdateFailed
	}
	return r
}

// reserveOrWait reserves a node for a project. Without a node, the project waits for one.
func (m *memory) reserveOrWait(d Demand, node string) {
	if node == "" {
		m.waiting[d.Project] = true
		return
	}
	delete(m.waiting, d.Project)
	m.ledger.reserve(d, node)
}

// decided reports whether the scheduler has made a decision about the project that the mirror does not show yet.
func (m *memory) decided(p *carav1.Project) bool {
	r, ok := m.ledger.reserved[p.GetMetadata().GetName()]
	return ok && r.revision > api.RevisionOf(p)
}

// requestedAt records that the scheduler has requested a move or a restore, unless the mirror shows the request already.
func (m *memory) requestedAt(p *carav1.Project) {
	name := p.GetMetadata().GetName()
	if now, ok := m.ledger.projects[name]; ok && api.RevisionOf(now) < api.RevisionOf(p) {
		m.asked[name] = api.RevisionOf(p)
	}
}

// nextMove returns the wait until the first failed move of a node's projects may be repeated, or 0 if there is none.
func (m *memory) nextMove(o *occupants) (wait time.Duration) {
	for _, r := range o.residents {
		a, failed := m.attempts[r.Project]
		if left := time.Until(a.due()); failed && r.Receive && left > 0 {
			wait = earlier(wait, left)
		}
	}
	return wait
}
