package apiserver

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ListClaims returns what a source declares, with what became of it.
func (s sourceService) ListClaims(_ context.Context, req *carav1.ListClaimsRequest) (*carav1.ListClaimsResponse, error) {
	if _, ok := state.Get[*carav1.Source](s.db.Cache, req.GetSource()); !ok {
		return nil, notFound(api.KindSource, req.GetSource())
	}
	items, meta := state.Page[*carav1.Claim](s.db.Cache, req.GetSource()+"/", req.GetPageToken(), req.GetLimit(), nil)
	return &carav1.ListClaimsResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindClaim), Items: items, Metadata: meta}, nil
}

// UpdateClaims writes what became of claims, and takes away those that are settled, in one transaction. A claim that is
// gone needs no status any more; one that came back is not taken away.
func (s sourceService) UpdateClaims(ctx context.Context, req *carav1.UpdateClaimsRequest) (*empty, error) {
	err := s.db.Transact(ctx, func(t *state.Tx) error {
		for _, u := range req.GetUpdates() {
			name := req.GetSource() + "/" + u.GetProject()
			old, ok := state.Read[*carav1.Claim](t, name)
			switch {
			case !ok:
			case u.GetRemove() && old.GetSpec().GetPresent():
				return api.Conflict("claim %q is present again: it is not taken away", name)
			case u.GetRemove():
				t.Remove(api.KindClaim, name)
			case !proto.Equal(old.GetStatus(), u.GetStatus()):
				c := proto.CloneOf(old)
				c.Status = proto.CloneOf(u.GetStatus())
				t.Put(c)
			}
		}
		return nil
	})
	return &empty{}, err
}
