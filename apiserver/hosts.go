package apiserver

import (
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// claimHosts makes the hosts of p its own, in its transaction, and lets go of those that only old had. A host that
// another project has is refused: hosts/HOST is one key, so of two claims at once one meets the other. Either project may
// be nil.
func claimHosts(t *state.Tx, old, p *carav1.Project) error {
	wanted := p.GetStatus().GetHosts()
	for _, host := range old.GetStatus().GetHosts() {
		if !slices.Contains(wanted, host) {
			t.Remove(state.KindHost, host)
		}
	}
	for _, host := range wanted {
		holder, taken := state.Read[*carav1.ObjectRef](t, host)
		name := p.GetMetadata().GetName()
		if taken && holder.GetName() != name {
			return api.Errorf(codes.AlreadyExists, api.TitleConflict,
				"ingress host %q belongs to project %q: choose another host, or delete that project first", host, holder.GetName())
		}
		if !taken || holder.GetUid() != p.GetMetadata().GetUid() {
			t.Write(state.Key(state.KindHost, host), &carav1.ObjectRef{Kind: api.KindProject, Name: name, Uid: p.GetMetadata().GetUid()})
		}
	}
	return nil
}
