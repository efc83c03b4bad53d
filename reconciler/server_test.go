package reconciler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
)

// server is the part of the API that the reconciler uses: ownership, uid and phase are checked in the transaction.
type server struct {
	carav1.UnimplementedProjectServiceServer
	carav1.UnimplementedApplyServiceServer
	carav1.UnimplementedSourceServiceServer
	carav1.UnimplementedEventServiceServer
	*fakecluster.Cluster

	mu      sync.Mutex
	uids    int
	refused map[string]string // project -> why the server refuses it
	poisons string            // a project that breaks every request it is in
	slow    bool              // deletions take until finish is called
	events  []*carav1.Event
	lag     bool     // the watch falls silent with the next apply
	broken  bool     // what is published has files that cannot be read
	crimes  []string // deletions that the law forbids

	clock sync.Mutex
	off   time.Duration // how far the wall clock is from the bubble's; guarded by clock
}

// now is the wall clock, which step sets.
func (s *server) now() time.Time {
	s.clock.Lock()
	defer s.clock.Unlock()
	return time.Now().Add(s.off)
}

func (s *server) step(d time.Duration) {
	s.clock.Lock()
	defer s.clock.Unlock()
	s.off += d
}

func newServer() *server {
	return &server{Cluster: fakecluster.New(), refused: map[string]string{}}
}

func (s *server) conn() grpc.ClientConnInterface {
	ch := s.Channel()
	carav1.RegisterProjectServiceServer(ch, s)
	carav1.RegisterApplyServiceServer(ch, s)
	carav1.RegisterSourceServiceServer(ch, s)
	carav1.RegisterEventServiceServer(ch, s)
	return ch
}

func (s *server) Apply(_ context.Context, req *carav1.ApplyRequest) (*carav1.ApplyResponse, error) {
	resp := &carav1.ApplyResponse{}
	for _, o := range req.Objects {
		if api.Unwrap(o).(*carav1.Project).Metadata.Name == s.poisoned() {
			return nil, api.TooMany("the message is too large")
		}
	}
	for _, o := range req.Objects {
		p := api.Unwrap(o).(*carav1.Project)
		res := &carav1.ApplyResult{Name: p.Metadata.Name}
		if err := s.applyOne(req, p, res); err != nil {
			res.Action, res.Problem = "refused", api.ProblemOf(err)
		}
		resp.Results = append(resp.Results, res)
	}
	if s.lag {
		s.Hold(true)
	}
	return resp, nil
}

func (s *server) poison(project string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poisons = project
}

func (s *server) poisoned() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.poisons
}

func (s *server) applyOne(req *carav1.ApplyRequest, p *carav1.Project, res *carav1.ApplyResult) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, owner := p.Metadata.Name, "source/"+req.Source
	if why := s.refused[name]; why != "" {
		return api.BadRequest("%s", why)
	}
	var next *carav1.Project
	err := s.Update(func(tx *fakecluster.Tx) error {
		old := fakecluster.Get[*carav1.Project](tx, name)
		switch {
		case old == nil:
			s.uids++
			p.Metadata.Uid, p.Metadata.Generation = fmt.Sprintf("uid-%d", s.uids), 1
			res.Action = "created"
		case api.GoingAway(old):
			return api.Errorf(codes.Aborted, "Terminating", "%s is being deleted", name)
		case old.Metadata.Owner == owner, old.Metadata.Owner != "" && slices.Contains(req.HandOver, old.Metadata.Owner):
		case strings.HasPrefix(old.Metadata.Owner, "source/"):
			return api.Owned("%s belongs to %s", name, old.Metadata.Owner)
		case req.Adopt == api.AdoptAlways, old.Metadata.Owner == "" && req.Adopt == api.AdoptIfUnowned:
		default:
			return api.Errorf(codes.FailedPrecondition, api.ClaimAdoptionRequired, "%s belongs to %s", name, old.Metadata.Owner)
		}
		if old != nil {
			if res.Action = "configured"; api.ClaimHash(old) == api.ClaimHash(p) && old.Metadata.Owner == owner {
				res.Action, next = "unchanged", old
				return nil
			}
			p.Metadata.Uid, p.Metadata.Generation, p.Status = old.Metadata.Uid, old.Metadata.Generation+1, old.Status
		} else {
			p.Status = &carav1.ProjectStatus{Phase: api.PhasePending}
			tx.Delete(api.KindTombstone, name)
		}
		p.Metadata.Owner = owner
		next = proto.CloneOf(p)
		tx.Put(next)
		return nil
	})
	if err == nil {
		res.Uid, res.ResourceVersion = next.Metadata.Uid, next.Metadata.ResourceVersion
	}
	return err
}

// accused returns the violations so far. A call may be on its way.
func (s *server) accused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.crimes)
}

func (s *server) DeleteProject(_ context.Context, req *carav1.DeleteProjectRequest) (*carav1.DeleteProjectResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &carav1.DeleteProjectResponse{}, s.Update(func(tx *fakecluster.Tx) error {
		p := fakecluster.Get[*carav1.Project](tx, req.Name)
		switch {
		case req.Uid == "" || req.Owner == "": // both are what keeps a loop from deleting another project of that name
			return api.BadRequest("project %s is deleted without its uid or its owner", req.Name)
		case p == nil:
			return api.NotFound("project %s is not there", req.Name)
		case req.Uid != "" && p.Metadata.Uid != req.Uid, req.Owner != "" && p.Metadata.Owner != req.Owner:
			return api.Conflict("project %s is another one, of %s", req.Name, p.Metadata.Owner)
		}
		if crime := forbidden(tx, p, req, s.now()); crime != "" {
			s.crimes = append(s.crimes, crime)
		}
		if s.slow {
			p.Status.Phase, p.Status.DeletionReason = api.PhaseTerminating, req.Reason
			p.Metadata.DeletionTimestamp = timestamppb.Now()
			tx.Put(p)
			return nil
		}
		s.bury(tx, p, req.Reason)
		return nil
	})
}

// bury takes a project away and leaves a tombstone.
func (s *server) bury(tx *fakecluster.Tx, p *carav1.Project, reason string) {
	tx.Delete(api.KindProject, p.Metadata.Name)
	tx.Put(&carav1.Tombstone{
		Metadata: &carav1.ObjectMeta{Name: p.Metadata.Name}, ProjectUid: p.Metadata.Uid, Owner: p.Metadata.Owner, Reason: reason,
		ExpireAt: p.Spec.ExpireAt, Time: timestamppb.New(s.now()),
	})
}

// finish ends the deletions under way, and expires what is named.
func (s *server) finish(expire ...string) {
	for _, p := range fakecluster.All[*carav1.Project](s.Cluster) {
		reason := p.Status.GetDeletionReason()
		if slices.Contains(expire, p.Metadata.Name) {
			reason = api.ReasonExpired
		} else if !api.GoingAway(p) {
			continue
		}
		_ = s.Update(func(tx *fakecluster.Tx) error { s.bury(tx, p, reason); return nil }) // cannot fail
	}
}

func (s *server) OverrideProject(_ context.Context, req *carav1.OverrideProjectRequest) (*carav1.Override, error) {
	if !req.Clear {
		return nil, api.BadRequest("only clear")
	}
	s.Delete(api.KindOverride, req.Name)
	return &carav1.Override{}, nil
}

func (s *server) UpdateClaims(_ context.Context, req *carav1.UpdateClaimsRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.Update(func(tx *fakecluster.Tx) error {
		var puts []*carav1.Claim
		for _, u := range req.Updates {
			c := fakecluster.Get[*carav1.Claim](tx, req.Source+"/"+u.Project)
			switch {
			case c == nil:
				return api.NotFound("no claim %s", u.Project)
			case u.Remove && c.Spec.Present:
				return api.Conflict("claim %s is present again", u.Project)
			}
			c.Status = u.Status
			puts = append(puts, c)
		}
		for i, u := range req.Updates {
			if u.Remove {
				tx.Delete(api.KindClaim, req.Source+"/"+u.Project)
				continue
			}
			tx.Put(puts[i])
		}
		return nil
	})
}

func (s *server) UpdateSourceStatus(_ context.Context, req *carav1.UpdateSourceStatusRequest) (*carav1.Source, error) {
	var src *carav1.Source
	err := s.Update(func(tx *fakecluster.Tx) error {
		src = fakecluster.Get[*carav1.Source](tx, req.Name)
		if src == nil || src.Metadata.Uid != req.Uid {
			return api.NotFound("no source %s", req.Name)
		}
		st := src.Status
		for _, c := range req.Conditions {
			st.Conditions, _ = api.SetCondition(st.Conditions, c, time.Now())
		}
		for to, from := range map[*string]*string{
			&st.AttemptedRevision: req.AttemptedRevision, &st.AppliedRevision: req.AppliedRevision, &st.HandledToken: req.HandledToken,
		} {
			if from != nil {
				*to = *from
			}
		}
		if req.Projects != nil {
			st.Projects = *req.Projects
		}
		if req.ObservedGeneration != nil {
			st.ObservedGeneration = *req.ObservedGeneration
		}
		if req.Run != nil {
			st.Runs = append([]*carav1.Run{req.Run}, st.Runs...)
			st.Runs = st.Runs[:min(len(st.Runs), 10)]
		}
		tx.Put(src)
		return nil
	})
	return src, err
}

func (s *server) RemoveSource(_ context.Context, req *carav1.DeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.Update(func(tx *fakecluster.Tx) error {
		src := fakecluster.Get[*carav1.Source](tx, req.Name)
		if src == nil || src.Metadata.Uid != req.Uid || src.Metadata.DeletionTimestamp == nil {
			return api.Conflict("source %s is not being deleted", req.Name)
		}
		for _, p := range fakecluster.AllIn[*carav1.Project](tx) {
			if p.Metadata.Owner == "source/"+req.Name {
				if src.Spec.OnDelete == api.OnDeleteDelete {
					return api.BadState("source %s still owns %s", req.Name, p.Metadata.Name)
				}
				p.Metadata.Owner = ""
				tx.Put(p)
			}
		}
		for _, c := range fakecluster.AllIn[*carav1.Claim](tx) {
			if c.Spec.Source == req.Name {
				tx.Delete(api.KindClaim, c.Metadata.Name)
			}
		}
		tx.Delete(api.KindSource, req.Name)
		return nil
	})
}

func (s *server) CreateEvent(_ context.Context, req *carav1.CreateEventRequest) (*carav1.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, req.Event)
	return req.Event, nil
}

// told returns the events since the last time, as `Reason object`.
func (s *server) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		all = append(all, e.Reason+" "+e.Object.Name)
	}
	s.events = nil
	slices.Sort(all)
	return all
}

// publish makes the claims all that a source declares, as `sources` does: what is missing stays with present false.
func (s *server) publish(t *testing.T, source, rev string, claims ...*carav1.Claim) {
	t.Helper()
	err := s.Update(func(tx *fakecluster.Tx) error {
		src := fakecluster.Get[*carav1.Source](tx, source)
		head := src.Status.GetSnapshot()
		if src.Status == nil {
			src.Status = &carav1.SourceStatus{}
		}
		src.Status.Snapshot = &carav1.Snapshot{Revision: rev, Sequence: head.GetSequence() + 1, Complete: !s.broken, Token: src.Status.RequestedToken}
		tx.Put(src)
		declared := map[string]bool{}
		for _, c := range claims {
			declared[c.Metadata.Name] = true
			old := fakecluster.Get[*carav1.Claim](tx, c.Metadata.Name)
			if old == nil || !proto.Equal(old.Spec, c.Spec) {
				next := proto.CloneOf(c)
				next.Status, next.Spec.Revision = old.GetStatus(), rev
				tx.Put(next)
			}
		}
		for _, old := range fakecluster.AllIn[*carav1.Claim](tx) {
			if old.Spec.Source == source && old.Spec.Present && !declared[old.Metadata.Name] {
				old.Spec.Present = false
				tx.Put(old)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
