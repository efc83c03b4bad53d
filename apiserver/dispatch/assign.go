package dispatch

import (
	"fmt"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// assignments is what was sent to one connected agent. It belongs to the goroutine that sends. It compares with the
// current state and not with single changes: if an object changed twice, it is sent once.
type assignments struct {
	server *Dispatcher
	me     *Session
	news   *assignmentFeed
	sent   map[string]sentAssignment // by project
	asked  map[string]int32          // by project that this node holds: the epoch that it was asked to release
	doomed map[string]bool           // volumes that it was asked to delete, by uid: whether it had reported them
	copies map[string]bool           // uids of the volumes that it was told to receive
	// restores holds the requests to restore a volume, by uid, so that a changed Secret is sent again.
	restores map[string]restoreRequest
}

// sentAssignment is what the agent knows about a project. It shows whether the project must be sent again.
type sentAssignment struct {
	uid     string
	version string
}

// project sends the agent what is new about a project.
func (a *assignments) project(name string) error {
	p, ok := state.Get[*carav1.Project](a.server.DB.Cache, name)
	if err := a.held(name, p); err != nil {
		return err
	}
	sent, known := a.sent[name]
	if ok && !assignedTo(p, a.me.Node) {
		ok = false
	}
	if known && (!ok || p.GetMetadata().GetUid() != sent.uid) {
		delete(a.sent, name)
		known = false
		if err := a.unassign(&carav1.Unassigned{Name: name, Uid: sent.uid}); err != nil {
			return err
		}
	}
	if !ok {
		return nil
	}
	now := a.describe(p)
	if known && now.version == sent.version {
		return nil
	}
	a.sent[name] = now
	out := a.server.Values().Assignment(p)
	switch m := out.GetProject().GetStatus().GetMove(); {
	case m.GetRestore() != nil:
		out.Project.Status.Move = nil // the agent's part of a restore is RestoreVolume
	case m != nil:
		m.Address = a.moveAddress(m)
	}
	return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Assignment{Assignment: out}})
}

// moveAddress returns the address where the agent reaches the new node of a move, or "" if it cannot.
func (a *assignments) moveAddress(m *carav1.Move) string {
	n, _ := state.Get[*carav1.Node](a.server.DB.Cache, m.GetTo())
	return ingressAddress(n, a.me.here)
}

// held asks the agent to report when nothing is left of a project that already has another node. It asks once for each
// epoch. The assignment is revoked after that and needs no second request.
func (a *assignments) held(name string, p *carav1.Project) error {
	if p.GetStatus().GetHeldBy() != a.me.Node {
		delete(a.asked, name)
		return nil
	}
	epoch := p.GetStatus().GetEpoch()
	if asked, ok := a.asked[name]; ok && asked == epoch {
		return nil
	}
	a.asked[name] = epoch
	delete(a.sent, name)
	return a.unassign(&carav1.Unassigned{Name: name, Uid: p.GetMetadata().GetUid(), Epoch: epoch})
}

func (a *assignments) unassign(what *carav1.Unassigned) error {
	return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Unassigned{Unassigned: what}})
}

// dooms reports whether to ask the agent now to delete a volume, and records that. If the agent has a volume after all that it
// did not have at first, it has forgotten the first request.
func (a *assignments) dooms(uid string, made bool) bool {
	before, asked := a.doomed[uid]
	a.doomed[uid] = made
	return !asked || made && !before
}

// volume asks the agent to delete a volume, to receive it from another node or to restore it, once in a session.
func (a *assignments) volume(name string) error {
	v, _ := state.Get[*carav1.Volume](a.server.DB.Cache, name)
	uid := v.GetMetadata().GetUid()
	if v.GetStatus().GetNode() != a.me.Node {
		return nil
	}
	switch st := v.GetStatus().GetState(); {
	case st == api.VolumeDeleting && a.dooms(uid, v.GetStatus().GetMade()):
		return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_RemoveVolume{RemoveVolume: &carav1.RemoveVolume{
			Uid: uid, Project: v.GetSpec().GetProject(), Name: v.GetSpec().GetName(), Unused: v.GetStatus().GetCopy(),
		}}})
	case st == api.VolumeCopying && v.GetStatus().GetRestoredFrom() != nil:
		return a.restore(v)
	case st == api.VolumeCopying && !a.copies[uid]:
		a.copies[uid] = true
		p, _ := state.Get[*carav1.Project](a.server.DB.Cache, v.GetSpec().GetProject())
		return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_ReceiveVolume{ReceiveVolume: &carav1.ReceiveVolume{
			Uid: uid, Project: v.GetSpec().GetProject(), Name: v.GetSpec().GetName(), Owner: v.GetStatus().GetOwner(),
			From: p.GetStatus().GetMove().GetFrom(),
		}}})
	}
	return nil
}

// assignedTo reports whether a node has work with a project: run it, keep what is left of it, or tear it down. It is false
// while another node holds the project.
func assignedTo(p *carav1.Project, node string) bool {
	if p.GetStatus().GetNodeRef() != node || p.GetStatus().GetHeldBy() != "" {
		return false
	}
	switch p.GetStatus().GetPhase() {
	case api.PhaseScheduled, api.PhaseRunning, api.PhaseFailed, api.PhaseTerminating:
		return true
	}
	return false
}

// describe leaves out what the agent itself reports. The only phase that counts is Terminating: the agent makes the other
// moves itself, or they come with a new generation or epoch.
func (a *assignments) describe(p *carav1.Project) sentAssignment {
	meta, st := p.GetMetadata(), p.GetStatus()
	terminating := st.GetPhase() == api.PhaseTerminating
	out := sentAssignment{
		uid: meta.GetUid(),
		version: fmt.Sprintf("%s %d %d %q %q %t %t %q", meta.GetUid(), meta.GetGeneration(), st.GetEpoch(),
			st.GetRestartToken(), api.Restarts(p), terminating, meta.GetDeletionTimestamp() != nil, st.GetBackupToken()),
	}
	for _, u := range st.GetVolumes() {
		out.version += " " + u.GetUid()
	}
	if m := st.GetMove(); m.GetStep() == api.MoveCopying || m.GetStep() == api.MoveSwitching {
		out.version += fmt.Sprintf(" %s %s %d %s", m.GetId(), m.GetStep(), m.GetAttempts(), a.moveAddress(m))
	}
	if terminating {
		return out // teardown needs no secrets
	}
	out.version += fmt.Sprintf(" %t", api.ManualSecrets(p))
	for _, name := range api.SecretNames(p.GetSpec()) {
		out.version += " " + name + "@" + a.server.Values().secretVersion(name)
	}
	return out
}
