package objects

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type empty = emptypb.Empty

// UpdateProjectStatus writes the status report of the project's node. A report without changes writes nothing.
func (s Projects) UpdateProjectStatus(ctx context.Context, req *carav1.UpdateProjectStatusRequest) (*empty, error) {
	if p, _ := state.Get[*carav1.Project](s.DB.Cache, req.GetName()); rules.ReportIsAhead(p, req) {
		if err := s.DB.CatchUp(ctx, api.KindProject, req.GetName()); err != nil {
			return nil, err
		}
	}
	refused := false
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		err := s.report(t, req)
		refused = err != nil
		return err
	})
	if api.IsConflict(err) && !refused { // others were faster each time. An agent drops a report that conflicts, and must repeat this one
		err = api.Unavailable("%s", api.ProblemOf(err).GetDetail())
	}
	return &empty{}, err
}

func (s Projects) report(t *state.Tx, req *carav1.UpdateProjectStatusRequest) error {
	_, err := rules.Edit(t, req.GetName(), func(p *carav1.Project) error {
		if err := rules.MayReport(t.Actor, p, req); err != nil {
			return err
		}
		if err := rules.ApplyReport(t, p, req); err != nil {
			return err
		}
		return rules.ApplyMoveReport(t, p, req.GetMove(), s.Live.Inventories.Of)
	})
	return err
}

// ScheduleProject applies one decision of the scheduler. It fails if the project has changed since the decision.
func (s Projects) ScheduleProject(ctx context.Context, req *carav1.ScheduleProjectRequest) (*carav1.Project, error) {
	var out *carav1.Project
	err := s.DB.Transact(ctx, s.decide(req, &out))
	return out, err
}

// ScheduleProjects applies several decisions of the scheduler. Each succeeds or fails as if it were alone.
func (s Projects) ScheduleProjects(ctx context.Context, req *carav1.ScheduleProjectsRequest) (*carav1.ScheduleProjectsResponse, error) {
	decided := make([]*carav1.Project, len(req.GetDecisions()))
	changes := make([]func(*state.Tx) error, len(decided))
	for i, d := range req.GetDecisions() {
		changes[i] = s.decide(d, &decided[i])
	}
	out := &carav1.ScheduleProjectsResponse{Results: make([]*carav1.ScheduleProjectResult, len(decided))}
	for i, err := range s.DB.TransactAll(ctx, changes) {
		if err != nil {
			err = api.Wire(err)
			out.Results[i] = &carav1.ScheduleProjectResult{Code: int32(api.Code(err)), Problem: api.ProblemOf(err)}
			continue
		}
		out.Results[i] = &carav1.ScheduleProjectResult{
			ResourceVersion: decided[i].GetMetadata().GetResourceVersion(), Epoch: decided[i].GetStatus().GetEpoch(),
		}
	}
	return out, nil
}

// decide returns the change that writes one decision. It sets out to the project after the decision.
func (s Projects) decide(req *carav1.ScheduleProjectRequest, out **carav1.Project) func(*state.Tx) error {
	return func(t *state.Tx) (err error) {
		if err := (Volumes{Service: s.Service}).awaitInventories(t.Seen, req); err != nil {
			return err
		}
		*out, err = rules.Edit(t, req.GetName(), func(p *carav1.Project) error {
			if err := rules.MustBe(p, "", req.GetResourceVersion()); err != nil {
				return err
			}
			return rules.ApplyDecision(t, p, req)
		})
		return err
	}
}
