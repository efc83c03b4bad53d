package objects

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// busy is a store in which another server is always faster.
type busy struct {
	store.Store
	cache *state.Cache
}

func (b busy) Commit(context.Context, store.Txn) (int64, error) {
	rev := b.cache.Revision() + 1
	b.cache.Apply(state.Transaction{Rev: rev})
	return 0, &store.ConflictError{Key: "projects/shop", Have: rev}
}

// TestReportMeetsConflicts: an agent drops a report that conflicts with the assignment. It repeats one that other writes have
// always overtaken.
func TestReportMeetsConflicts(t *testing.T) {
	cache := state.NewCache(10)
	cache.Apply(state.Transaction{Rev: 1, Changes: []state.Change{{Kind: api.KindProject, Name: "shop", New: &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "shop", Uid: "u", Generation: 1},
		Status:   &carav1.ProjectStatus{Phase: api.PhaseTerminating, NodeRef: "n1", Epoch: 2},
	}}}})
	s := Projects{Service: &Service{DB: &state.DB{Cache: cache, Store: busy{cache: cache}, Now: time.Now}, Live: live.New(time.Now())}}
	ctx := identity.WithActor(t.Context(), identity.Actor{Name: "node/n1", Role: api.RoleNode})
	report := &carav1.UpdateProjectStatusRequest{Name: "shop", Uid: "u", Epoch: 2, ObservedGeneration: 1, Phase: api.PhaseTerminated}
	if _, err := s.UpdateProjectStatus(ctx, report); api.Code(err) != codes.Unavailable {
		t.Errorf("a report that others overtake: %v", err)
	}
	report.Epoch = 1
	if _, err := s.UpdateProjectStatus(ctx, report); api.Code(err) != codes.Aborted {
		t.Errorf("a report of an older assignment: %v", err)
	}
}
