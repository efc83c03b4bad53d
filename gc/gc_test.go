package gc

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func project(name, phase string, change ...func(*carav1.Project)) *carav1.Project {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: name, Uid: "u-" + name}, Spec: &carav1.ProjectSpec{}, Status: &carav1.ProjectStatus{Phase: phase},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func expiring(at time.Time) func(*carav1.Project) {
	return func(p *carav1.Project) { p.Spec.ExpireAt = timestamppb.New(at) }
}

func extended(at time.Time) func(*carav1.Project) {
	return func(p *carav1.Project) { p.Status.ExpireAt = timestamppb.New(at) }
}

func override(name string, until time.Time) *carav1.Override {
	return &carav1.Override{Metadata: &carav1.ObjectMeta{Name: name}, Until: timestamppb.New(until)}
}

func born(at time.Time) func(*carav1.Project) {
	return func(p *carav1.Project) { p.Metadata.CreationTimestamp = timestamppb.New(at) }
}

// noticed says on a project that it expires soon.
func noticed(p *carav1.Project) {
	p.Status.Conditions, _ = api.SetCondition(p.Status.Conditions, &carav1.Condition{Type: api.CondExpiring, Status: api.StatusTrue, Reason: "Soon"}, time.Time{})
}

func TestActionsFor(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	const before = 15 * time.Minute
	ends := func(at time.Time) []Action {
		return []Action{{Notice, "a", "u-a", at.Add(-before)}, {Expire, "a", "u-a", at}}
	}
	tests := map[string]struct {
		obj  proto.Message
		want []Action
	}{
		"a project without expiry":               {obj: project("a", api.PhaseRunning)},
		"Running with expiry":                    {project("a", api.PhaseRunning, expiring(at)), ends(at)},
		"Pending with expiry":                    {project("a", api.PhasePending, expiring(at)), ends(at)},
		"Failed with expiry":                     {project("a", api.PhaseFailed, expiring(at)), ends(at)},
		"an extension counts more than the spec": {project("a", api.PhaseRunning, expiring(at), extended(at.Add(time.Hour))), ends(at.Add(time.Hour))},
		"an expiry that only an operator set":    {project("a", api.PhaseRunning, extended(at)), ends(at)},
		"the notice was given":                   {project("a", api.PhaseRunning, expiring(at), noticed), []Action{{Expire, "a", "u-a", at}}},
		"a short life has its notice half way":   {project("a", api.PhaseRunning, expiring(at), born(at.Add(-20*time.Minute))), []Action{{Notice, "a", "u-a", at.Add(-10 * time.Minute)}, {Expire, "a", "u-a", at}}},
		"a long life has it in time":             {project("a", api.PhaseRunning, expiring(at), born(at.Add(-20*time.Hour))), ends(at)},
		"born after its end":                     {project("a", api.PhaseRunning, expiring(at), born(at.Add(time.Hour))), []Action{{Expire, "a", "u-a", at}}},
		"Terminating is on its way":              {obj: project("a", api.PhaseTerminating, expiring(at))},
		"deletion asked for is on its way":       {obj: project("a", api.PhaseRunning, expiring(at), func(p *carav1.Project) { p.Metadata.DeletionTimestamp = timestamppb.New(at) })},
		"Terminated is removed at once":          {project("a", api.PhaseTerminated, expiring(at)), []Action{{Verb: Remove, Name: "a", UID: "u-a"}}},
		"an override with an end":                {override("a", at), []Action{{Verb: ClearOverride, Name: "a", At: at}}},
		"an override until it is cleared":        {obj: &carav1.Override{Metadata: &carav1.ObjectMeta{Name: "a"}}},
		"something that time does nothing to":    {obj: &carav1.Node{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, ActionsFor(tt.obj, before)); d != "" {
				t.Errorf("actions (-want +got):\n%s", d)
			}
		})
	}
}

func TestDue(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	a := NewAgenda()
	for name, in := range map[string]time.Duration{"past": -time.Hour, "now": 0, "soon": time.Nanosecond, "late": time.Hour} {
		a.Set(Action{Verb: Expire, Name: name, At: now.Add(in)})
	}
	a.Set(Action{Verb: ClearOverride, Name: "now", At: now})
	a.Set(Action{Verb: Remove, Name: "at-once"})
	a.Set(Action{Verb: Expire, Name: "moved", At: now.Add(-time.Minute)})
	a.Set(Action{Verb: Expire, Name: "moved", At: now.Add(time.Minute)})
	due, next := Due(a, now)
	var names []string
	for _, d := range due {
		names = append(names, fmt.Sprint(d.Verb, " ", d.Name))
	}
	if d := cmp.Diff([]string{"Remove at-once", "Expire past", "ClearOverride now", "Expire now"}, names); d != "" {
		t.Errorf("due (-want +got):\n%s", d)
	}
	if !next.Equal(now.Add(time.Nanosecond)) || a.Len() != 3 {
		t.Errorf("next %v with %d left", next, a.Len())
	}
	if due, next := Due(NewAgenda(), now); due != nil || !next.IsZero() {
		t.Errorf("an empty agenda has %v due and next %v", due, next)
	}
}

// server does what the collector asks, and notes when.
type server struct {
	carav1.UnimplementedProjectServiceServer
	carav1.UnimplementedEventServiceServer
	carav1.UnimplementedFileServiceServer
	*fakecluster.Cluster

	mu     sync.Mutex
	start  time.Time
	done   []string             // `after verb name`
	before func(project string) // called before a deletion
	off    time.Duration        // how far the wall clock is from the bubble's
}

// now is the wall clock, which step sets.
func (s *server) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.off)
}

func (s *server) step(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off += d
}

// beforeDelete calls f before each deletion from now on.
func (s *server) beforeDelete(f func(project string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

func (s *server) note(verb, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, fmt.Sprint(time.Since(s.start), " ", verb, " ", name))
}

func (s *server) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := s.done
	s.done = nil
	slices.Sort(done)
	return done
}

func (s *server) DeleteProject(_ context.Context, req *carav1.DeleteProjectRequest) (*carav1.DeleteProjectResponse, error) {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before(req.Name)
	}
	err := s.Update(func(tx *fakecluster.Tx) error {
		p := fakecluster.Get[*carav1.Project](tx, req.Name)
		if p == nil || p.Metadata.Uid != req.Uid {
			return api.NotFound("no project %s", req.Name)
		}
		p.Status.Phase, p.Status.DeletionReason = api.PhaseTerminating, req.Reason
		tx.Put(p)
		return nil
	})
	if err == nil {
		s.note("delete("+req.Reason+")", req.Name)
	}
	return &carav1.DeleteProjectResponse{}, err
}

func (s *server) NoticeExpiry(_ context.Context, req *carav1.RemoveProjectRequest) (*emptypb.Empty, error) {
	err := s.Update(func(tx *fakecluster.Tx) error {
		p := fakecluster.Get[*carav1.Project](tx, req.Name)
		if p == nil || p.Metadata.Uid != req.Uid {
			return api.NotFound("no project %s", req.Name)
		}
		noticed(p)
		tx.Put(p)
		return nil
	})
	if err == nil {
		s.note("notice", req.Name)
	}
	return &emptypb.Empty{}, err
}

func (s *server) RemoveProject(_ context.Context, req *carav1.RemoveProjectRequest) (*emptypb.Empty, error) {
	s.Delete(api.KindProject, req.Name)
	s.note("remove", req.Name)
	return &emptypb.Empty{}, nil
}

func (s *server) OverrideProject(_ context.Context, req *carav1.OverrideProjectRequest) (*carav1.Override, error) {
	s.Delete(api.KindOverride, req.Name)
	s.note("clear", req.Name)
	return &carav1.Override{}, nil
}

func (s *server) TrimHistory(_ context.Context, req *carav1.TrimHistoryRequest) (*carav1.TrimHistoryResponse, error) {
	now := time.Now()
	s.note(fmt.Sprintf("trim(events %v, tombstones %v)", now.Sub(req.EventsBefore.AsTime()), now.Sub(req.TombstonesBefore.AsTime())), "history")
	return &carav1.TrimHistoryResponse{Events: 1}, nil
}

func (s *server) TrimBlobs(_ context.Context, req *carav1.TrimBlobsRequest) (*carav1.TrimBlobsResponse, error) {
	s.note(fmt.Sprintf("trim files(unused since %v)", time.Since(req.GetBefore().AsTime())), "files")
	return &carav1.TrimBlobsResponse{Deleted: 1}, nil
}

// run calls test with a running collector, in a bubble of synctest's time.
func run(t *testing.T, test func(t *testing.T, s *server, restart func())) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{Cluster: fakecluster.New(), start: time.Now()}
		ch := s.Channel()
		carav1.RegisterProjectServiceServer(ch, s)
		carav1.RegisterEventServiceServer(ch, s)
		carav1.RegisterFileServiceServer(ch, s)
		var stop func()
		start := func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			c := New(Config{Conn: ch, Logger: slog.New(slog.DiscardHandler), TrimEvery: 1000 * time.Hour, Now: s.now})
			go func() { done <- c.Run(ctx) }()
			stop = func() {
				cancel()
				if err := <-done; err != nil {
					t.Errorf("run: %v", err)
				}
			}
			synctest.Wait()
		}
		start()
		s.take()
		test(t, s, func() { stop(); start(); s.take() })
		stop()
	})
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func want(t *testing.T, s *server, lines ...string) {
	t.Helper()
	if d := cmp.Diff(lines, s.take()); d != "" {
		t.Errorf("done (-want +got):\n%s", d)
	}
}

func TestExpiresOnTime(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		at := s.start.Add(1234567 * time.Millisecond)
		s.Put(project("b", api.PhaseRunning, expiring(at)), project("a", api.PhasePending, expiring(at.Add(time.Millisecond))), project("stays", api.PhaseRunning))
		pass(time.Hour)
		want(t, s, "20m34.567s delete(Expired) b", "20m34.568s delete(Expired) a", "5m34.567s notice b", "5m34.568s notice a")
	})
}

func TestAnEarlierExpiryMovesTheTimer(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		s.Put(project("late", api.PhaseRunning, noticed, expiring(s.start.Add(20*time.Second))))
		pass(5 * time.Second)
		s.Put(project("early", api.PhaseRunning, noticed, expiring(s.start.Add(7*time.Second))))
		pass(time.Minute)
		want(t, s, "20s delete(Expired) late", "7s delete(Expired) early")
	})
}

func TestAnExtensionHoldsTheExpiryBack(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		s.Put(project("pr", api.PhaseRunning, noticed, expiring(s.start.Add(10*time.Second))))
		pass(9 * time.Second)
		s.Put(project("pr", api.PhaseRunning, noticed, expiring(s.start.Add(10*time.Second)), extended(s.start.Add(time.Hour))))
		pass(59 * time.Minute)
		want(t, s)
		pass(time.Hour)
		want(t, s, "1h0m0s delete(Expired) pr")
	})
}

func TestExpiryPassesWhileTheProcessIsDown(t *testing.T) {
	run(t, func(t *testing.T, s *server, restart func()) {
		s.Refuse("DeleteProject", api.Unavailable("away"))
		s.Put(project("pr", api.PhaseRunning, expiring(s.start.Add(time.Second))))
		pass(time.Minute)
		s.Refuse("DeleteProject", nil)
		s.mu.Lock()
		s.start = time.Now()
		s.mu.Unlock()
		restart()
		if p := fakecluster.Read[*carav1.Project](s.Cluster, "pr"); p.Status.DeletionReason != "Expired" {
			t.Errorf("not deleted at once after the restart: %v", p.Status)
		}
	})
}

func TestAFailureIsRetried(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		s.Refuse("DeleteProject", api.Unavailable("away"))
		s.Put(project("pr", api.PhaseRunning, noticed, expiring(s.start.Add(time.Second))))
		pass(10 * time.Second)
		s.Refuse("DeleteProject", nil)
		pass(time.Minute)
		if got := s.take(); len(got) != 1 {
			t.Errorf("done %v, want one deletion", got)
		}
	})
}

func TestTerminatedIsRemovedAtOnce(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		s.Put(project("a", api.PhaseRunning), project("b", api.PhaseTerminated))
		pass(3 * time.Second)
		s.Put(project("a", api.PhaseTerminated))
		pass(time.Hour)
		want(t, s, "0s remove b", "3s remove a")
	})
}

func TestOverridesEndOnTime(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		s.Put(override("web", s.start.Add(2*time.Hour)))
		pass(3 * time.Hour)
		want(t, s, "2h0m0s clear web")
	})
}

func TestHistoryIsTrimmedAtStartAndThenRegularly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{Cluster: fakecluster.New(), start: time.Now()}
		ch := s.Channel()
		carav1.RegisterEventServiceServer(ch, s)
		carav1.RegisterFileServiceServer(ch, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- New(Config{Conn: ch, Logger: slog.New(slog.DiscardHandler)}).Run(ctx) }()
		pass(61 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		want(t, s, "0s trim files(unused since 30m0s) files", "0s trim(events 24h0m0s, tombstones 168h0m0s) history",
			"1h0m0s trim files(unused since 30m0s) files", "1h0m0s trim(events 24h0m0s, tombstones 168h0m0s) history")
	})
}

func TestTheClockIsLookedAtAgain(t *testing.T) {
	// A step of the wall clock does not affect timers. It is noticed because no sleep is longer than a glance: an agenda whose
	// only entry is an hour away is checked every 30 s.
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Conn: fakecluster.New().Channel(), Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go c.tick(ctx)
		synctest.Wait()
		c.mu.Lock()
		c.agenda.Set(Action{Verb: Expire, Name: "pr", At: time.Now().Add(-time.Second)}) // as if the clock had jumped past it
		c.mu.Unlock()
		pass(glance)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.agenda.Len() != 0 {
			t.Error("still on the agenda after a glance")
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		var all []proto.Message
		for i := range 500 {
			all = append(all, project(fmt.Sprintf("pr-%03d", i), api.PhaseRunning, noticed, expiring(s.start.Add(time.Minute))))
		}
		s.Put(all...)
		pass(time.Minute)
		if got := s.take(); len(got) != 500 {
			t.Errorf("%d deleted on time, want 500", len(got))
		}
	})
}

func BenchmarkAgenda(b *testing.B) {
	now := time.Now()
	a := NewAgenda()
	for i := range 10_000 {
		a.Set(Action{Verb: Expire, Name: fmt.Sprint(i), At: now.Add(time.Duration(i) * time.Second)})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		a.Set(Action{Verb: Expire, Name: "1", At: now.Add(time.Duration(i) * time.Second)})
		Due(a, now.Add(-time.Second))
	}
}
