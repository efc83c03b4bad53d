package scheduler

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// slowServer answers each decision after a second.
type slowServer struct {
	*fakeServer
	calls  atomic.Int32
	refuse error // of calls with several decisions
}

func (s *slowServer) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	switch args.(type) {
	case *carav1.ScheduleProjectRequest:
		s.calls.Add(1)
		<-time.After(time.Second)
	case *carav1.ScheduleProjectsRequest:
		s.calls.Add(1)
		<-time.After(time.Second)
		if s.refuse != nil {
			return s.refuse
		}
	}
	return s.fakeServer.Invoke(ctx, method, args, reply, opts...)
}

// TestDecisionsShareCalls: while the server is busy, the decisions that wait share the next call. If the server rejects a
// call with several as invalid, each gets a call of its own.
func TestDecisionsShareCalls(t *testing.T) {
	for name, tt := range map[string]struct {
		refuse      error
		projects    int
		least, most int32
	}{
		"many":            {nil, 1000, 1000 / maxBatch, 60},
		"rejected as one": {api.Errorf(codes.InvalidArgument, api.TitleInvalid, "no"), 100, 100, 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowServer{fakeServer: newFakeServer(), refuse: tt.refuse}
				n := node("n1", "800Gi")
				n.Status.Info.Capacity.Subnets = int32(tt.projects)
				s.Put(n)
				for i := range tt.projects {
					s.Put(pending(fmt.Sprintf("p%d", i), ""))
				}
				defer live(s.fakeServer, "n1")()
				stop := runOn(t, s, Config{})
				pass(2 * time.Minute)
				stop()
				for i := range tt.projects {
					if p := s.project(fmt.Sprintf("p%d", i)); p.Status.Phase != api.PhaseScheduled || p.Status.Epoch != 1 {
						t.Fatalf("project %d: %v", i, p.Status)
					}
				}
				if n := s.calls.Load(); n < tt.least || n > tt.most {
					t.Errorf("%d calls for %d projects, want %d to %d", n, tt.projects, tt.least, tt.most)
				}
			})
		})
	}
}
