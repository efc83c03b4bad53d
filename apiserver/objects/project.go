package objects

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// CreateProject creates a project.
func (s Projects) CreateProject(ctx context.Context, req *carav1.CreateProjectRequest) (*carav1.Project, error) {
	return create(ctx, s.DB, req.GetProject(), declareProject, asStored)
}

// PutProject creates or replaces a project.
func (s Projects) PutProject(ctx context.Context, req *carav1.PutProjectRequest) (*carav1.Project, error) {
	return put(ctx, s.DB, req.GetProject(), declareProject, asStored)
}

func declareProject(t *state.Tx, in *carav1.Project) (before, after *carav1.Project, err error) {
	return rules.DeclareProject(t, in, nil)
}

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
		p, err := rules.Named[*carav1.Project](t, req.GetName(), req.GetUid(), "")
		if err != nil {
			return err
		}
		return rules.RemoveProject(t, p, api.RoleGC, "nothing is left of it")
	})
	return &empty{}, err
}

// AdoptProject gives a project without an owner to a source that claims it. If two sources try, the first commit wins. The
// project does not change until the source's next reconciliation.
func (s Projects) AdoptProject(ctx context.Context, req *carav1.AdoptProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if api.GoingAway(p) {
			return rules.ErrTerminating(p)
		}
		have := p.GetMetadata().GetOwner()
		if strings.HasPrefix(have, api.PrefixSource) && have != api.PrefixSource+req.GetSource() {
			return api.Owned("project %q belongs to %s: release it first (caractrl release %s)",
				req.GetName(), rules.Whence(have, p.GetMetadata().GetOrigin()), req.GetName())
		}
		claim, err := rules.Claimant(t, req)
		if err != nil {
			return err
		}
		owner := api.PrefixSource + claim.GetSource()
		if have == owner {
			return nil
		}
		if err := rules.DeclaredBySource(t, claim.GetSource(), claim.GetProject()); err != nil {
			return err
		}
		p.Metadata.Owner, p.Metadata.Origin = owner, rules.OriginOf(claim)
		rules.OwnVolumes(t, p)
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonAdopted, "given to "+rules.Whence(owner, p.GetMetadata().GetOrigin())+" by "+t.Actor.Name+", before it belonged to "+api.OrNobody(have))
		return nil
	})
}

// ReleaseProject takes a project from its source and gives it to the caller. Git no longer manages it, so its override is
// removed, and an extension becomes part of the project's own expiry.
func (s Projects) ReleaseProject(ctx context.Context, req *carav1.ReleaseProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		have := p.GetMetadata().GetOwner()
		switch {
		case api.GoingAway(p):
			return rules.ErrTerminating(p)
		case rules.SourceOf(p) == "":
			return api.BadState("project %q belongs to %s: only what a source owns is released",
				req.GetName(), api.OrNobody(have))
		}
		if err := rules.MayDeclare(t, p); err != nil {
			return err
		}
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonReleased, "released from "+rules.Whence(have, p.GetMetadata().GetOrigin())+" by "+t.Actor.Name+", who owns it now")
		p.Metadata.Owner, p.Metadata.Origin = t.Actor.Name, nil
		rules.OwnVolumes(t, p)
		return rules.SettleOverride(t, p, "the project was released")
	})
}
