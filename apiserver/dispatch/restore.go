package dispatch

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// restoreRequest is what the agent knows about the restore of one volume.
type restoreRequest struct {
	volume string // name of the Volume object
	secret string // name of the Secret that the backups use
	sent   *carav1.RestoreVolume
}

// restore asks the agent to restore a volume, unless it has the same request already.
func (a *assignments) restore(v *carav1.Volume) error {
	from, uid := v.GetStatus().GetRestoredFrom(), v.GetMetadata().GetUid()
	a.server.deliveries.restores(a.news) // before the values are read, so that no later change is missed
	p, ok := state.Get[*carav1.Project](a.server.DB.Cache, from.GetProject())
	if !ok {
		return nil
	}
	req := a.server.Values().restoreVolume(p, v)
	if req == nil || sameRestore(req, a.restores[uid].sent) {
		return nil
	}
	a.restores[uid] = restoreRequest{volume: v.GetMetadata().GetName(), secret: p.GetSpec().GetBackup().GetSecretRef(), sent: req}
	return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_RestoreVolume{RestoreVolume: req}})
}

// sameRestore reports whether two requests are the same for a connected agent, which knows the snapshot that it has chosen.
func sameRestore(a, b *carav1.RestoreVolume) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := proto.CloneOf(a), proto.CloneOf(b)
	x.Snapshot, y.Snapshot = "", ""
	return proto.Equal(x, y)
}

// restoresWith sends again the restores that use a Secret.
func (a *assignments) restoresWith(secret string) error {
	return a.restoresThat(func(r restoreRequest) bool { return r.secret == secret })
}

// restoresAgain sends again all restores.
func (a *assignments) restoresAgain() error {
	return a.restoresThat(func(restoreRequest) bool { return true })
}

// restoresThat sends again some of the restores, where they differ.
func (a *assignments) restoresThat(match func(restoreRequest) bool) error {
	for _, uid := range slices.Sorted(maps.Keys(a.restores)) {
		r := a.restores[uid]
		v, ok := state.Get[*carav1.Volume](a.server.DB.Cache, r.volume)
		if !ok || v.GetMetadata().GetUid() != uid || v.GetStatus().GetState() != api.VolumeCopying {
			delete(a.restores, uid)
			continue
		}
		if !match(r) {
			continue
		}
		if err := a.restore(v); err != nil {
			return err
		}
	}
	return nil
}

// restoreVolume returns the request to restore a volume with the values of the Secret, or nil if no restore fills it. The
// snapshot is the one that the node has chosen, if it has, so that a restarted agent does not choose a newer one.
func (s Values) restoreVolume(p *carav1.Project, v *carav1.Volume) *carav1.RestoreVolume {
	for _, moved := range p.GetStatus().GetMove().GetVolumes() {
		if moved.GetNewUid() != v.GetMetadata().GetUid() || p.GetStatus().GetMove().GetStep() != api.MoveRestoring {
			continue
		}
		out := &carav1.RestoreVolume{
			Uid: moved.GetNewUid(), Project: v.GetSpec().GetProject(), Name: v.GetSpec().GetName(), Owner: v.GetStatus().GetOwner(),
			FromProject: p.GetMetadata().GetName(), FromVolume: moved.GetName(), Snapshot: moved.GetSnapshot(),
		}
		name := p.GetSpec().GetBackup().GetSecretRef()
		if out.Problem = rules.BackupSecretProblem(s.DB.Cache, name); out.Problem == "" {
			out.Values = s.backupValues(name)
		}
		return out
	}
	return nil
}
