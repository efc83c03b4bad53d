package objects

import (
	"context"
	"errors"
	"fmt"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// DeleteProject begins a project's deletion and waits a short time for its end. A project that never had a node is deleted
// immediately.
func (s Projects) DeleteProject(ctx context.Context, req *carav1.DeleteProjectRequest) (*carav1.DeleteProjectResponse, error) {
	var uid string
	err := s.transactSeen(ctx, req.GetName(), func(t *state.Tx) (err error) {
		uid, err = rules.DeleteProject(t, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	gone := func() bool {
		p, ok := state.Get[*carav1.Project](s.DB.Cache, req.GetName())
		return !ok || p.GetMetadata().GetUid() != uid
	}
	if !gone() && !req.GetNoWait() {
		if err := s.awaitGone(ctx, gone); err != nil {
			return nil, err
		}
	}
	if gone() {
		return &carav1.DeleteProjectResponse{Gone: true, Message: fmt.Sprintf("project %q deleted", req.GetName())}, nil
	}
	return &carav1.DeleteProjectResponse{Message: fmt.Sprintf("project %q is being deleted", req.GetName())}, nil
}

// awaitGone waits until gone returns true or DeleteWait is over, which is not an error.
func (s *Service) awaitGone(ctx context.Context, gone func() bool) error {
	bounded, cancel := context.WithTimeout(ctx, s.DeleteWait)
	defer cancel()
	err := s.DB.Cache.Await(bounded, gone)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	return err
}

// RemoveProject removes the record of a Terminated project.
func (s Projects) RemoveProject(ctx context.Context, req *carav1.RemoveProjectRequest) (*empty, error) {
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		p, ok := state.Read[*carav1.Project](t, req.GetName())
		if !ok {
			return rules.NotFound(api.KindProject, req.GetName())
		}
		if err := rules.MustBe(p, req.GetUid(), ""); err != nil {
			return err
		}
		return rules.RemoveProject(t, p, api.RoleGC, "nothing is left of it")
	})
	return &empty{}, err
}
