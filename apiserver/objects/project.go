package objects

import (
	"context"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// CreateProject creates a project.
func (s Projects) CreateProject(ctx context.Context, req *carav1.CreateProjectRequest) (*carav1.Project, error) {
	var out *carav1.Project
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		name := req.GetProject().GetMetadata().GetName()
		if _, exists := state.Read[*carav1.Project](t, name); exists {
			return api.AlreadyExists("project %q already exists", name)
		}
		_, after, err := rules.DeclareProject(t, req.GetProject(), nil)
		out = after
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, answerCreated(ctx)
}

// PutProject creates or replaces a project.
func (s Projects) PutProject(ctx context.Context, req *carav1.PutProjectRequest) (*carav1.Project, error) {
	want := ifMatch(ctx, req.GetProject().GetMetadata().GetResourceVersion())
	var before, out *carav1.Project
	err := s.DB.Transact(ctx, func(t *state.Tx) (err error) {
		if err := rules.MustMatch(t, api.KindProject, req.GetProject(), want); err != nil {
			return err
		}
		before, out, err = rules.DeclareProject(t, req.GetProject(), nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	if before == nil {
		return out, answerCreated(ctx)
	}
	return out, nil
}
