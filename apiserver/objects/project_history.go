package objects

import (
	"context"
	"fmt"
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// GetProjectHistory returns the project's specs, newest first.
func (s Projects) GetProjectHistory(ctx context.Context, req *carav1.GetRequest) (*carav1.ProjectHistory, error) {
	_, items, err := s.revisions(ctx, req.GetName())
	return &carav1.ProjectHistory{Items: items}, err
}

// revisions reads a project's history and returns the project's uid.
func (s *Service) revisions(ctx context.Context, project string) (uid string, items []*carav1.Revision, err error) {
	p, ok := state.Get[*carav1.Project](s.DB.Cache, project)
	if !ok {
		return "", nil, rules.NotFound(api.KindProject, project)
	}
	page, err := s.DB.Store.List(ctx, "revisions/"+project+"/", store.ListOptions{Limit: 2 * rules.HistoryLength})
	if err != nil {
		return "", nil, state.StoreError(err)
	}
	for _, kv := range slices.Backward(page.KVs) {
		m, err := state.Decode(&carav1.Revision{}, kv.Value, kv.Modified)
		if err != nil {
			return "", nil, fmt.Errorf("read %s: %w", kv.Key, err)
		}
		items = append(items, m.(*carav1.Revision))
	}
	return p.GetMetadata().GetUid(), items, nil
}

// RollbackProject writes an earlier spec of the project again.
func (s Projects) RollbackProject(ctx context.Context, req *carav1.RollbackProjectRequest) (*carav1.Project, error) {
	uid, items, err := s.revisions(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	to, err := rules.PickRevision(req.GetName(), req.GetTo(), items)
	if err != nil {
		return nil, err
	}
	var out *carav1.Project
	err = s.transactSeen(ctx, req.GetName(), func(t *state.Tx) error {
		out, err = rules.Rollback(t, uid, to, req.GetTerms())
		return err
	})
	return out, err
}
