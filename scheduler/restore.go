package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// A restore begins with a request (RPC RestoreProject), of an operator or, for a project with `onNodeLoss: Restore` whose node
// is lost, of the scheduler. The scheduler chooses the node, or checks whether the project fits on the requested one. While
// the data is restored, the project counts on that node, too.

// restored returns the demand of a project whose data is restored on its new node. The data of volumes that are not restored
// stays where it is.
func (d *Demand) restored(r *carav1.Restore) Demand {
	out := *d
	out.Data, out.Restore = nil, true
	if r.GetAs() != "" { // nothing runs on the restored volumes yet
		out.CPU, out.Memory, out.Idle = 0, 0, true
		return out
	}
	for _, at := range d.Data {
		at.Volumes = slices.DeleteFunc(slices.Clone(at.Volumes), func(name string) bool { return slices.Contains(r.GetVolumes(), name) })
		if len(at.Volumes) > 0 {
			out.Data = append(out.Data, at)
		}
	}
	return out
}

// restores reports whether a node can restore data from a backup.
func restores(n *carav1.Node) bool {
	_, tool := n.GetStatus().GetInfo().GetTools()[api.ToolRestic]
	return tool
}

// restoring reports whether a project waits for restored data that it will run on.
func restoring(p *carav1.Project) bool {
	m := p.GetStatus().GetMove()
	return m.GetStep() == api.MoveRestoring && m.GetRestore().GetAs() == ""
}

// orderWithout returns the nodes as if a project used nothing there.
func (l *ledger) orderWithout(project string) []*Candidate {
	held := l.effective(project)
	out := slices.Clone(l.order)
	for i, c := range out {
		if held.on(c.Name) {
			at, used := *c, held.at(c.Name)
			at.UsedCPU, at.UsedMemory = at.UsedCPU-used.cpu, at.UsedMemory-used.memory
			at.UsedSubnets, at.Projects = at.UsedSubnets-used.subnets, at.Projects-used.projects
			out[i] = &at
		}
	}
	return out
}

// decideRestore accepts or refuses the requested restore of a project.
func (s moves) decideRestore(ctx context.Context, p *carav1.Project) error {
	name, m := p.GetMetadata().GetName(), p.GetStatus().GetMove()
	whole, err := demand(p)
	if err != nil {
		return fmt.Errorf("project %s: %w", name, err)
	}
	d := whole.restored(m.GetRestore())
	s.mu.Lock()
	if s.decided(p) {
		s.mu.Unlock()
		return nil // the mirror is older than our own decision
	}
	node, why := s.chooseRestore(d, m.GetTo(), s.cfg.Strategy)
	if at := p.GetStatus().GetNodeRef(); why == "" && m.GetRestore().GetAs() == "" {
		if at == "" || at == node {
			s.ledger.reserve(whole, node)
		} else {
			s.ledger.reservePlacement(whole, placement{node: at, to: node, stopped: p.GetStatus().GetPhase() == api.PhaseFailed})
		}
	}
	s.mu.Unlock()
	return s.answerMove(ctx, p, node, why)
}

// Recovery is the decision about a project with `onNodeLoss: Restore` whose data is on a lost node.
type Recovery struct {
	// Node restores the last backup. If it is empty, the project waits because of Why.
	Node string
	Why  string
}

// Recover decides whether and where the last backup of a project replaces the data on a lost node. It is a pure function.
func Recover(p *carav1.Project, d Demand, nodes []*Candidate, how Strategy) Recovery {
	from := d.Data[0].Node
	if m := p.GetStatus().GetMove(); m.GetRestore() != nil && m.GetTo() != from {
		return Recovery{Why: strings.TrimSuffix("its data is being restored on node "+m.GetTo(), " on node ")}
	}
	if missing := notBackedUp(p, d.Data[0].Volumes); len(missing) > 0 {
		return Recovery{Why: fmt.Sprintf("and waits until the node returns: there is no backup of volumes %s yet, and the data is on node %s", strings.Join(missing, ", "), from)}
	}
	if api.UpdateFailed(p) {
		return Recovery{Why: staysUpdateFailed}
	}
	others := without(nodes, from)
	switch {
	case len(others) == 0:
		return Recovery{Why: "there is no other node that can restore the backup"}
	case allLost(nodes):
		return Recovery{Why: fmt.Sprintf("all %d nodes are lost, so nothing is restored", len(nodes))}
	}
	v := Place(d.restored(&carav1.Restore{Volumes: d.Data[0].Volumes}), others, how)
	if v.Node == "" {
		return Recovery{Why: "its backup cannot be restored: of the other nodes " + v.Explain()}
	}
	return Recovery{Node: v.Node}
}

// notBackedUp returns the volumes of which the last backup of a project has no snapshot.
func notBackedUp(p *carav1.Project, volumes []string) []string {
	b := p.GetStatus().GetBackup()
	var missing []string
	for _, name := range volumes {
		if b.GetLastSuccess() == nil || !slices.ContainsFunc(b.GetSnapshots(), func(s *carav1.BackupSnapshot) bool { return s.GetVolume() == name }) {
			missing = append(missing, name)
		}
	}
	return missing
}

// backupText describes the last backup of a project: `the backup of 2026-01-31T03:30:00Z (5h before node n1 was lost)`. The
// text does not change with time, because a changed condition causes another pass.
func backupText(p *carav1.Project, lost *carav1.Node) string {
	at := p.GetStatus().GetBackup().GetLastSuccess()
	if at == nil {
		return "no backup"
	}
	out := "the backup of " + at.AsTime().UTC().Format(time.RFC3339)
	if since := lostAt(lost); since != nil {
		out += fmt.Sprintf(" (%s before node %s was lost)", duration.HumanDuration(max(0, since.AsTime().Sub(at.AsTime()))), lost.GetMetadata().GetName())
	}
	return out
}

func lostAt(n *carav1.Node) *timestamppb.Timestamp {
	return api.FindCondition(n.GetStatus().GetConditions(), api.CondReady).GetLastTransitionTime()
}

// recovers reports whether a backup of the project replaces data on a lost node.
func recovers(p *carav1.Project, d *Demand) bool {
	return p.GetSpec().GetOnNodeLoss() == api.NodeLossRestore && p.GetSpec().GetBackup() != nil && len(d.Data) == 1
}

// restoreLost requests a restore of a project whose data is on a lost node, after the wait that the project asks for. lost is
// that node; nil if it was deleted. say writes why the project waits.
func (s moves) restoreLost(ctx context.Context, p *carav1.Project, d Demand, lost *carav1.Node, say func(why string) error) (time.Duration, error) {
	wait, never, err := api.RescheduleAfter(p.GetSpec().GetRescheduleAfter())
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	_, asked := s.asked[d.Project]
	to, failed, again := Recover(p, d, s.ledger.order, s.cfg.Strategy), s.restores[d.Project], s.restores[d.Project].due()
	s.waiting[d.Project] = true
	s.mu.Unlock()
	var left time.Duration
	if lost != nil {
		left = time.Until(s.lostSince(lost).Add(wait))
	}
	backup := backupText(p, lost)
	switch {
	case asked:
		return 0, nil // the mirror is older than our own request
	case declined(p, lost):
		return 0, say(fmt.Sprintf("and waits until the node returns, because a restore was cancelled at %s; caractrl restore %s restores %s",
			p.GetStatus().GetRestoreDeclined().AsTime().UTC().Format(time.RFC3339), d.Project, backup))
	case to.Node == "":
		return 0, say(to.Why + "; " + backup)
	case never:
		return 0, say("and waits until the node returns, because rescheduleAfter is never: " + d.bound(d.Data[0].Node))
	case left > 0:
		return left, say(fmt.Sprintf("and waits for the node for %s; then another node restores %s", wait, backup))
	case failed.failures > 0 && time.Until(again) > 0:
		return time.Until(again), say(fmt.Sprintf("%s; the restore of %s is tried again at %s", failed.why, backup, again.UTC().Format(time.RFC3339)))
	}
	return 0, s.requestRestore(ctx, p, to.Node)
}

// declined reports whether somebody has cancelled a restore of the project since its node was lost. Then only a request restores
// the project, until the node is lost again. lost is nil if the node was deleted.
func declined(p *carav1.Project, lost *carav1.Node) bool {
	at, since := p.GetStatus().GetRestoreDeclined(), lostAt(lost)
	return at != nil && (since == nil || !at.AsTime().Before(since.AsTime()))
}

// requestRestore requests the restore of a project on a node. A refusal counts as a failed restore.
func (s moves) requestRestore(ctx context.Context, p *carav1.Project, node string) error {
	name := p.GetMetadata().GetName()
	out, err := s.projects.RestoreProject(ctx, &carav1.RestoreProjectRequest{Name: name, Node: node})
	if err != nil {
		return s.notRequested("restore", name, s.restores, projectKey(name), err)
	}
	s.cfg.Logger.Warn("restore requested, because the node with the data is lost", "project", name, "node", node)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requestedAt(out)
	return nil
}

// obsolete returns why a restore that the scheduler has requested for a lost node is ended: that node is back, or the node that
// restores is lost, too. left is when to look again, 0 for never.
func (s moves) obsolete(p *carav1.Project) (why string, left time.Duration) {
	m := p.GetStatus().GetMove()
	if m.GetRestore() == nil || m.GetActor() != api.PrefixSystem+api.RoleScheduler {
		return "", 0
	}
	if at := api.DataNodes(p); len(at) == 1 {
		n, ok := loop.Get[*carav1.Node](s.mirror, at[0])
		if ok && n.GetStatus().GetState() != api.NodeNotReady && n.GetStatus().GetState() != "" {
			return fmt.Sprintf("node %s is back, and it has the data of project %s", at[0], p.GetMetadata().GetName()), 0
		}
	}
	to, ok := loop.Get[*carav1.Node](s.mirror, m.GetTo())
	if !ok || to.GetStatus().GetState() != api.NodeNotReady {
		return "", 0
	}
	wait, _, _ := api.RescheduleAfter(p.GetSpec().GetRescheduleAfter()) // a stored spec was validated before
	if left := time.Until(s.lostSince(to).Add(wait)); left > 0 {
		return "", left
	}
	return fmt.Sprintf("node %s is lost, too", m.GetTo()), 0
}
