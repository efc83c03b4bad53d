package objects

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// editSource runs change on the transaction's own copy of a source, and writes the copy if it changed.
func (s Sources) editSource(ctx context.Context, name string, change func(t *state.Tx, src *carav1.Source) error) (*carav1.Source, error) {
	var out *carav1.Source
	err := s.DB.Transact(ctx, func(t *state.Tx) (err error) {
		out, err = rules.Edit(t, name, func(src *carav1.Source) error {
			src.Status = cmp.Or(src.Status, &carav1.SourceStatus{})
			return change(t, src)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.overlaySource(out), nil
}

// ReconcileSource requests a probe and a reconciliation now.
func (s Sources) ReconcileSource(ctx context.Context, req *carav1.GetRequest) (*carav1.ReconcileSourceResponse, error) {
	token := ""
	src, err := s.editSource(ctx, req.GetName(), func(_ *state.Tx, src *carav1.Source) error {
		if src.GetSpec().GetSuspend() {
			return api.BadState("source %q is suspended: resume it first (caractrl resume %s)", req.GetName(), req.GetName())
		}
		token = requestToken(src.GetStatus().GetRequestedToken())
		src.Status.RequestedToken = token
		return notDeleted(src)
	})
	if err != nil {
		return nil, err
	}
	return &carav1.ReconcileSourceResponse{Token: token, Source: src}, nil
}

// requestToken returns the token after before. Tokens sort in the order of the requests, so the answer to a request also
// answers all earlier ones. The prefix sorts after the random tokens of earlier versions.
func requestToken(before string) string {
	const prefix = "r"
	n, err := strconv.ParseUint(strings.TrimPrefix(before, prefix), 10, 63)
	if err != nil || !strings.HasPrefix(before, prefix) {
		n = 0
	}
	return fmt.Sprintf("%s%019d", prefix, n+1)
}

// SuspendSource stops fetching, applying and pruning.
func (s Sources) SuspendSource(ctx context.Context, req *carav1.GetRequest) (*carav1.Source, error) {
	return s.suspend(ctx, req.GetName(), true, api.ReasonSuspended)
}

// ResumeSource ends a suspension.
func (s Sources) ResumeSource(ctx context.Context, req *carav1.GetRequest) (*carav1.Source, error) {
	return s.suspend(ctx, req.GetName(), false, api.ReasonResumed)
}

func (s Sources) suspend(ctx context.Context, name string, suspend bool, reason api.Reason) (*carav1.Source, error) {
	return s.editSource(ctx, name, func(t *state.Tx, src *carav1.Source) error {
		if src.GetSpec().GetSuspend() == suspend {
			return nil
		}
		src.Spec.Suspend = suspend
		src.Metadata.Generation++
		rules.RecordEvent(t, rules.RefTo(src), api.EventNormal, reason, "by "+t.Actor.Name)
		return notDeleted(src)
	})
}

// ConfirmSource allows the prune of exactly one revision: that of the source's snapshot.
func (s Sources) ConfirmSource(ctx context.Context, req *carav1.ConfirmSourceRequest) (*carav1.Source, error) {
	return s.editSource(ctx, req.GetName(), func(t *state.Tx, src *carav1.Source) error {
		have := src.GetStatus().GetSnapshot().GetRevision()
		if have == "" || !strings.HasPrefix(have, req.GetRevision()) {
			return api.BadState("source %q is at revision %q, not at %q: look at what would be pruned there, then confirm that one", req.GetName(), have, req.GetRevision())
		}
		if src.GetStatus().GetConfirmedRevision() != have {
			src.Status.ConfirmedRevision = have
			rules.RecordEvent(t, rules.RefTo(src), api.EventNormal, api.ReasonPruneConfirmed, "prune at "+have+" released by "+t.Actor.Name)
		}
		return notDeleted(src)
	})
}

// MaxRuns is how many reconciliations a source's status lists.
const MaxRuns = 10

// UpdateSourceStatus writes the status that a loop reports. The result of a poll stays in memory.
func (s Sources) UpdateSourceStatus(ctx context.Context, req *carav1.UpdateSourceStatusRequest) (*carav1.Source, error) {
	src, err := s.editSource(ctx, req.GetName(), func(t *state.Tx, src *carav1.Source) error {
		if err := rules.MustBe(src, req.GetUid(), ""); err != nil {
			return err
		}
		updateSource(t, src.Status, req)
		return nil
	})
	if err != nil || req.GetPoll() == nil {
		return src, err
	}
	s.Live.Polls.Note(req.GetName(), proto.CloneOf(req.GetPoll()))
	return s.overlaySource(src), nil
}

func updateSource(t *state.Tx, st *carav1.SourceStatus, req *carav1.UpdateSourceStatusRequest) {
	for _, c := range req.GetConditions() {
		st.Conditions, _ = api.SetCondition(st.GetConditions(), c, t.Now)
	}
	if req.ObservedGeneration != nil {
		st.ObservedGeneration = req.GetObservedGeneration()
	}
	if req.AttemptedRevision != nil {
		st.AttemptedRevision = req.GetAttemptedRevision()
	}
	if req.AppliedRevision != nil {
		st.AppliedRevision = req.GetAppliedRevision()
	}
	if req.HandledToken != nil {
		// Two loops answer requests. The older answer may arrive last.
		st.HandledToken = max(st.GetHandledToken(), req.GetHandledToken())
	}
	if req.Projects != nil {
		st.Projects = req.GetProjects()
	}
	if req.GetRun() != nil {
		st.Runs = append([]*carav1.Run{proto.CloneOf(req.GetRun())}, st.GetRuns()...)
		st.Runs = st.Runs[:min(len(st.Runs), MaxRuns)]
	}
}

// WatchHints streams the sources that had a delivery since the stream began. If deliveries arrive faster than they are
// read, they are merged to one hint for each source.
func (s Sources) WatchHints(_ *empty, stream carav1.SourceService_WatchHintsServer) error {
	sub := s.Live.Hints.Subscribe()
	defer s.Live.Hints.Unsubscribe(sub)
	for {
		for source, d := range sub.Take() {
			if err := stream.Send(&carav1.Hint{Source: source, Delivery: d}); err != nil {
				return err
			}
		}
		select {
		case <-sub.Wake:
		case <-s.DB.Draining:
			return state.ErrDraining()
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}
