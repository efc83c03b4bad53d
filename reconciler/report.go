package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// Limits of one request, and of the events of one pass.
const (
	claimsAtOnce = 1000
	maxEvents    = 100
)

// report writes the results of a pass: claims, then the source, then events. It writes only what changed.
func (r *Reconciler) report(ctx context.Context, in plan.Input, p *plan.Plan, done *outcome) error {
	if done.removed {
		r.cfg.Logger.Info("source removed", "source", p.Source, "projects", p.Owned)
		return nil
	}
	if err := r.writeClaims(ctx, p.Source, claimUpdates(p, done, in.Now)); err != nil {
		return err
	}
	req := statusUpdate(in, p, done, r.cfg.Now())
	if err := r.updateSource(ctx, p.Source, req); err != nil {
		return err
	}
	if done.began.IsZero() && req == nil {
		return nil
	}
	if !done.began.IsZero() {
		t := summarise(p, done)
		r.cfg.Logger.Info("source reconciled", "source", p.Source, "rev", p.Revision, "created", t.created,
			"updated", t.updated, "pruned", t.pruned, "failed", t.failed)
	}
	for _, e := range events(in, p, done, req) {
		r.tell(ctx, e)
	}
	return nil
}

// writeClaims writes the changed claims in parts, several at a time.
func (r *Reconciler) writeClaims(ctx context.Context, source string, updates []*carav1.ClaimUpdate) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for part := range slices.Chunk(updates, claimsAtOnce) {
		group.Go(func() error {
			if _, err := r.sources.UpdateClaims(ctx, &carav1.UpdateClaimsRequest{Source: source, Updates: part}); err != nil {
				return fmt.Errorf("write claims: %w", err)
			}
			r.index.wrote(source, part)
			return nil
		})
	}
	return group.Wait()
}

// updateSource writes a source's status. A nil request means no change.
func (r *Reconciler) updateSource(ctx context.Context, name string, req *carav1.UpdateSourceStatusRequest) error {
	if req == nil {
		return nil
	}
	s, err := r.sources.UpdateSourceStatus(ctx, req)
	if api.IsNotFound(err) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	m := r.memory(name)
	m.seen = max(m.seen, api.RevisionOf(s))
	return nil
}

// tell records an event. Events are for people: if one cannot be written, tell logs it and the pass still succeeds.
func (r *Reconciler) tell(ctx context.Context, e *carav1.Event) {
	if _, err := r.events.CreateEvent(ctx, &carav1.CreateEventRequest{Event: e}); err != nil && ctx.Err() == nil {
		r.cfg.Logger.Warn("event not recorded", "reason", e.Reason, "object", e.Object.GetName(), "error", err)
	}
}

// claimUpdates returns the claim statuses that changed, and the claims to remove.
func claimUpdates(p *plan.Plan, done *outcome, now time.Time) []*carav1.ClaimUpdate {
	var updates []*carav1.ClaimUpdate
	for i := range p.Steps {
		s, res := &p.Steps[i], &done.results[i]
		if s.Row.Claim == nil {
			continue
		}
		if s.Action == plan.Forget {
			updates = append(updates, &carav1.ClaimUpdate{Project: s.Project, Remove: true})
			continue
		}
		if next := s.ClaimStatus(res.Outcome, now); next != nil {
			updates = append(updates, &carav1.ClaimUpdate{Project: s.Project, Status: next})
		}
	}
	return updates
}

// events returns what people should know: corrected drift, and new problems of a claim or of the source.
func events(in plan.Input, p *plan.Plan, done *outcome, req *carav1.UpdateSourceStatusRequest) []*carav1.Event {
	var all []*carav1.Event
	for i := range p.Steps {
		s, res := &p.Steps[i], &done.results[i]
		if len(all) == maxEvents {
			break
		}
		if e := stepEvent(p.Source, s, res); e != nil {
			all = append(all, e)
		}
	}
	for _, c := range req.GetConditions() {
		old := api.FindCondition(in.Source.GetStatus().GetConditions(), c.Type)
		if c.Type != api.CondReady && c.Status == api.StatusTrue && old.GetStatus() != api.StatusTrue {
			about := &carav1.ObjectRef{Kind: api.KindSource, Name: in.Source.Metadata.Name, Uid: in.Source.Metadata.Uid}
			all = append(all, &carav1.Event{Type: api.EventWarning, Reason: c.Type, Message: plan.Bounded(c.Message), Object: about})
		}
	}
	return all
}

// stepEvent returns the event of a step, or nil if nothing happened that is worth one.
func stepEvent(source string, s *plan.Step, res *result) *carav1.Event {
	switch {
	case s.Action == plan.Update && s.Reason == api.ReasonDrift && res.Wrote:
		return projectEvent(s, api.EventNormal, api.ReasonDriftCorrected, "put back what git says: "+plan.DiffText(s.Diff))
	case s.Action == plan.Update && s.Reason == api.ReasonOverrideEnded && res.Wrote:
		return projectEvent(s, api.EventNormal, api.ReasonOverrideUndone, "the override ended and git's version was applied: "+plan.DiffText(s.Diff))
	case res.State == "" || res.State == api.ClaimApplied || res.State == s.Row.Status.GetState():
		return nil
	case res.State == api.ClaimOverridden, res.State == api.ClaimPruneBlocked: // recorded when the override was set, or once for the source
		return nil
	}
	typ := api.EventWarning
	if res.State == api.ClaimExpired { // the expiry was requested
		typ = api.EventNormal
	}
	return projectEvent(s, typ, res.State, fmt.Sprintf("source/%s, %s: %s",
		source, api.Place(s.Row.Claim.GetSpec().GetFile(), s.Row.Claim.GetSpec().GetLine(), 0), res.Message))
}

func projectEvent(s *plan.Step, typ, reason, message string) *carav1.Event {
	return &carav1.Event{
		Type: typ, Reason: reason, Message: plan.Bounded(message),
		Object: &carav1.ObjectRef{Kind: api.KindProject, Name: s.Project, Uid: s.UID},
	}
}

// attempted formats the errors of a pass for its run's message.
func attempted(err error) string {
	if err == nil {
		return ""
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) && len(joined.Unwrap()) > 1 {
		return fmt.Sprintf("%v (and %d more)", joined.Unwrap()[0], len(joined.Unwrap())-1)
	}
	return err.Error()
}
