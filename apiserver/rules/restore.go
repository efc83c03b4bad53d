package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A restore fills new volumes on a node from the backups of a project, and then gives them to the project. It is a move whose
// data comes from a repository and not from another node, so its state is status.move, too:
//
//   - Requested: the scheduler chooses the node, or checks whether the project fits there.
//   - Restoring: each volume has a second Volume object in the state Copying. Its node fills it, and reports the progress in
//     its inventory.
//
// When the node has reported that all volumes are complete and verified, one transaction gives them to the project. The
// volumes that they replace are retained. Until then, the project runs on the data that it has, and each other end of the
// restore deletes only the new volumes.

// Bounds of the id of a snapshot. restic prints 64 characters, or the first 8.
const (
	minSnapshot = 8
	maxSnapshot = 64
)

// EndStranded ends a move or a restore that cannot go on, because the node with the data is lost: the scheduler restores the
// project's last backup on another node instead. p is the transaction's own copy.
func EndStranded(t *state.Tx, p *carav1.Project) {
	m := p.GetStatus().GetMove()
	if m == nil || m.GetTo() == "" {
		return
	}
	lost := m.GetFrom()
	if m.GetRestore() != nil {
		lost = m.GetTo()
		if n, ok := state.Read[*carav1.Node](t, lost); ok && n.GetStatus().GetState() != api.NodeNotReady {
			return
		}
	}
	EndMove(t, p, api.ReasonMoveCancelled, "node "+lost+" is lost, and the last backup is restored on another node instead")
}

// RestoreOf returns what a request restores, or why it cannot, with what to do. It depends only on the project.
func RestoreOf(p *carav1.Project, req *carav1.RestoreProjectRequest) (*carav1.Restore, error) {
	name, as := p.GetMetadata().GetName(), req.GetAs()
	switch m := p.GetStatus().GetMove(); {
	case api.GoingAway(p):
		return nil, ErrTerminating(p)
	case p.GetSpec().GetBackup() == nil:
		return nil, api.BadState("project %q has no spec.backup: add it to the manifest, with the Secret of type backup that has the repository", name)
	case m != nil:
		return nil, ErrMoving(p, m)
	case as == name:
		return nil, api.Invalid("the request", api.Field("as", "is the project itself; leave it out, or give another name"))
	case as != "" && !api.IsName(as):
		return nil, api.Invalid("the request", api.Field("as", "is no name of a project; use lower-case letters, digits and -"))
	case as == "" && api.UpdateFailed(p):
		return nil, api.BadState("the last update of project %q failed, and the project would start with that update: correct the spec, or roll it back (caractrl rollback %s)", name, name)
	}
	volumes, err := restoredVolumes(p, req.GetVolumes())
	if err != nil {
		return nil, err
	}
	snapshot := req.GetSnapshot()
	switch {
	case snapshot == "" || snapshot == api.SnapshotLatest:
		return &carav1.Restore{As: as, Volumes: volumes}, nil
	case !isSnapshot(snapshot):
		return nil, api.Invalid("the request", api.Field("snapshot", "is no id of a snapshot; write %s, or the id that restic snapshots prints", api.SnapshotLatest))
	case len(volumes) != 1:
		return nil, api.BadState("a snapshot has the data of one volume, and project %q has the volumes %s: name the volume, too (--volume)", name, strings.Join(volumes, ", "))
	}
	return &carav1.Restore{Snapshot: snapshot, As: as, Volumes: volumes}, nil
}

// restoredVolumes returns the names of the volumes to restore, in the order of the spec: all Managed volumes, or those that
// are named.
func restoredVolumes(p *carav1.Project, named []string) ([]string, error) {
	var all, out []string
	for _, v := range api.ManagedVolumes(p.GetSpec()) {
		all = append(all, v.GetName())
		if len(named) == 0 || slices.Contains(named, v.GetName()) {
			out = append(out, v.GetName())
		}
	}
	for _, name := range named {
		if !slices.Contains(all, name) {
			return nil, api.BadState("project %q has no Managed volume %q: its Managed volumes are %s", p.GetMetadata().GetName(), name, cmp.Or(strings.Join(all, ", "), "none"))
		}
	}
	if len(out) == 0 {
		return nil, api.BadState("project %q has no Managed volumes: there is nothing to restore", p.GetMetadata().GetName())
	}
	return out, nil
}

func isSnapshot(id string) bool {
	return len(id) >= minSnapshot && len(id) <= maxSnapshot && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f')
	})
}

// ErrMoving is the error for a project that is moving or being restored already.
func ErrMoving(p *carav1.Project, m *carav1.Move) error {
	name := p.GetMetadata().GetName()
	if m.GetRestore() != nil {
		return api.BadState("project %q is being restored already: wait, or cancel that restore (caractrl restore %s --cancel)", name, name)
	}
	return api.BadState("project %q is moving to node %s already: wait, or cancel that move (caractrl move %s --cancel)", name, m.GetTo(), name)
}

// RestoreNode returns the node that restores the data: the requested one, or the project's own if that is there. If it is
// empty, the scheduler chooses the node.
func RestoreNode(t *state.Tx, p *carav1.Project, requested string) string {
	at := p.GetStatus().GetNodeRef()
	if requested != "" || at == "" {
		return requested
	}
	if n, ok := state.Read[*carav1.Node](t, at); !ok || n.GetStatus().GetState() == api.NodeNotReady {
		return ""
	}
	return at
}

// MayRestore returns why a node cannot restore the data of a project, with what to do, or nil. to may be empty.
func MayRestore(t *state.Tx, p *carav1.Project, r *carav1.Restore, to string) error {
	if problem := BackupSecretProblem(t.Seen, p.GetSpec().GetBackup().GetSecretRef()); problem != "" {
		return api.BadState("the backups of project %q cannot be read: %s", p.GetMetadata().GetName(), problem)
	}
	if to == "" {
		return nil
	}
	n, ok := state.Read[*carav1.Node](t, to)
	if !ok {
		return NotFound(api.KindNode, to)
	}
	return cannotRestore(p, r, n)
}

// cannotRestore returns why a node cannot restore the data of a project and run it then, with what to do, or nil.
func cannotRestore(p *carav1.Project, r *carav1.Restore, to *carav1.Node) error {
	name, own := to.GetMetadata().GetName(), p.GetStatus().GetNodeRef() == to.GetMetadata().GetName()
	switch {
	case to.GetStatus().GetState() == api.NodeNotReady:
		return api.BadState("node %s is NotReady: start cara-agent there, or choose another node", name)
	case !own && (to.GetSpec().GetDraining() || to.GetSpec().GetUnschedulable()):
		return api.BadState("node %s takes no new projects, because it is cordoned or draining: uncordon it (caractrl uncordon %s), or choose another node", name, name)
	}
	if _, ok := to.GetStatus().GetInfo().GetTools()[api.ToolRestic]; !ok {
		return api.BadState("node %s has no restic, which reads the backups: install it there (apt-get install restic) and restart cara-agent", name)
	}
	if elsewhere := leftElsewhere(p, r, name); elsewhere != nil {
		return api.BadState("the data of volume %s is on node %s and is not restored, but project %q runs on one node: restore it, too, or restore on node %s (--node)",
			elsewhere.GetName(), elsewhere.GetNode(), p.GetMetadata().GetName(), elsewhere.GetNode())
	}
	return nil
}

// leftElsewhere returns a volume with data on another node that a restore does not replace, or nil.
func leftElsewhere(p *carav1.Project, r *carav1.Restore, node string) *carav1.VolumeUse {
	if r.GetAs() != "" {
		return nil
	}
	for _, u := range p.GetStatus().GetVolumes() {
		if u.GetMade() && u.GetNode() != node && !slices.Contains(r.GetVolumes(), u.GetName()) {
			return u
		}
	}
	return nil
}

// MayRestoreAs returns why the restored volumes cannot be kept under another name, or nil.
func MayRestoreAs(t *state.Tx, p *carav1.Project, r *carav1.Restore) error {
	if r.GetAs() == "" {
		return nil
	}
	if err := t.Actor.CheckName(r.GetAs()); err != nil {
		return err
	}
	for _, volume := range r.GetVolumes() {
		name := api.VolumeName(r.GetAs(), volume)
		if _, taken := state.Read[*carav1.Volume](t, name); taken {
			return api.BadState("there is a volume %q already: restore project %q under another name, or delete that volume (caractrl delete volume %s)",
				name, p.GetMetadata().GetName(), name)
		}
	}
	return nil
}

// BackupSecretProblem returns why a Secret cannot be used for backups, with what to do, or "". It contains no part of a value.
func BackupSecretProblem(r state.Reader, name string) string {
	secret, exists := state.Get[*carav1.Secret](r, name)
	source := SourceSecrets(r)[name]
	switch {
	case source != "":
		return "the Secret " + name + " belongs to source " + source + ", and no project may use it: name another one in spec.backup.secretRef"
	case !exists:
		return "the Secret " + name + " does not exist: create it with caractrl create secret " + name + " --type backup"
	case secret.GetType() != api.SecretBackup:
		return "the Secret " + name + " is not of type backup: create it again with caractrl create secret " + name + " --type backup"
	}
	return ""
}

// NeedsNoRoom reports whether a restore can begin without the scheduler: the project counts on the node already, or it does
// not run on the restored data.
func NeedsNoRoom(p *carav1.Project, m *carav1.Move) bool {
	phase := p.GetStatus().GetPhase()
	here := m.GetTo() == p.GetStatus().GetNodeRef() && (phase == api.PhaseScheduled || phase == api.PhaseRunning)
	return m.GetTo() != "" && (here || m.GetRestore().GetAs() != "")
}

// RestoredWhat describes what a restore does: `the newest backup of volumes db, media on node n2 for project other`.
func RestoredWhat(m *carav1.Move) string {
	r := m.GetRestore()
	text := "the newest backup"
	if r.GetSnapshot() != "" {
		text = "snapshot " + r.GetSnapshot()
	}
	noun := " of volume "
	if len(r.GetVolumes()) > 1 {
		noun = " of volumes "
	}
	text += noun + strings.Join(r.GetVolumes(), ", ")
	if m.GetTo() != "" {
		text += " on node " + m.GetTo()
	}
	if r.GetAs() != "" {
		text += fmt.Sprintf(" for project %s", r.GetAs())
	}
	return text
}
