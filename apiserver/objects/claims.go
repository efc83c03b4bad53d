package objects

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ListClaims returns the claims of a source with their status.
func (s Sources) ListClaims(_ context.Context, req *carav1.ListClaimsRequest) (*carav1.ListClaimsResponse, error) {
	if _, ok := state.Get[*carav1.Source](s.DB.Cache, req.GetSource()); !ok {
		return nil, rules.NotFound(api.KindSource, req.GetSource())
	}
	items, meta := state.Page[*carav1.Claim](s.DB.Cache, req.GetSource()+"/", req.GetPageToken(), req.GetLimit(), nil)
	if project := req.GetProject(); project != "" {
		items, meta = state.PageOf[*carav1.Claim](s.DB.Cache.View(), []string{req.GetSource() + "/" + project}, 0, nil)
	}
	return &carav1.ListClaimsResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindClaim), Items: items, Metadata: meta}, nil
}

// updateBatch is how many claims one transaction of UpdateClaims writes.
const updateBatch = 50

// UpdateClaims writes the status of claims and removes settled ones. It ignores a claim that is gone, and does not remove a
// claim that came back. After an error some updates may already be written.
func (s Sources) UpdateClaims(ctx context.Context, req *carav1.UpdateClaimsRequest) (*empty, error) {
	work, ctx := s.Guard.Group(ctx, "UpdateClaims", partsParallel)
	for updates := range slices.Chunk(req.GetUpdates(), updateBatch) {
		work.Go(func() error {
			return s.DB.Transact(ctx, func(t *state.Tx) error {
				for _, u := range updates {
					if err := updateClaim(t, req.GetSource(), u); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	return &empty{}, work.Wait()
}

func updateClaim(t *state.Tx, source string, u *carav1.ClaimUpdate) error {
	name := source + "/" + u.GetProject()
	old, ok := state.Read[*carav1.Claim](t, name)
	switch {
	case !ok:
	case u.GetRemove() && old.GetSpec().GetPresent():
		return api.Conflict("claim %q is present again: it is not taken away", name)
	case u.GetRemove():
		removeClaim(t, source, u.GetProject())
	case !proto.Equal(old.GetStatus(), u.GetStatus()):
		c := copyOf(old)
		c.Status = u.GetStatus()
		t.Put(c)
	}
	return nil
}

// removeClaim removes a claim, and the staged claim that replaces it.
func removeClaim(t *state.Tx, source, project string) {
	t.Remove(api.KindClaim, source+"/"+project)
	src, _ := state.Get[*carav1.Source](t.Seen, source)
	staged := state.StagedName(source, src.GetStatus().GetSnapshot().GetGeneration(), project)
	if _, ok := state.Read[*carav1.StagedClaim](t, staged); ok {
		t.Remove(state.KindStaged, staged)
	}
}
