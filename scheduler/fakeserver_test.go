package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// fakeServer is an in-memory server with compare-and-swap, behind a connection.
type fakeServer struct {
	mu       sync.Mutex
	revision int
	projects map[string]*carav1.Project
	nodes    map[string]*carav1.Node
	beats    map[string]time.Time
	log      []*carav1.WatchResponse
	wake     chan struct{}
	writes   int
	peak     int          // how many projects that ran once did not, at most
	moves    atomic.Int32 // how many calls of MoveProject there were
	restores atomic.Int32 // how many calls of RestoreProject there were
	refuse   error
	waits    atomic.Int32 // how often a drain wrote what it waits for
}

func newFakeServer() *fakeServer {
	return &fakeServer{projects: map[string]*carav1.Project{}, nodes: map[string]*carav1.Node{}, beats: map[string]time.Time{}, wake: make(chan struct{})}
}

// put commits objects; it is called with mu held.
func (w *fakeServer) put(deleted bool, objects ...proto.Message) {
	w.revision++
	msg := &carav1.WatchResponse{ResourceVersion: strconv.Itoa(w.revision)}
	for _, o := range objects {
		api.Meta(o).ResourceVersion = msg.ResourceVersion
		switch o := o.(type) {
		case *carav1.Project:
			w.projects[o.Metadata.Name] = o
			if deleted {
				delete(w.projects, o.Metadata.Name)
			}
		case *carav1.Node:
			w.nodes[o.Metadata.Name] = o
			if deleted {
				delete(w.nodes, o.Metadata.Name)
			}
		}
		w.peak = max(w.peak, w.homeless())
		msg.Changes = append(msg.Changes, &carav1.Change{Deleted: deleted, Object: api.Wrap(o)})
	}
	w.log = append(w.log, msg)
	close(w.wake)
	w.wake = make(chan struct{})
}

func (w *fakeServer) Put(objects ...proto.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range objects {
		objects[i] = proto.Clone(objects[i])
	}
	w.put(false, objects...)
}

func (w *fakeServer) change(name string, f func(*carav1.Project)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := proto.CloneOf(w.projects[name])
	f(p)
	w.put(false, p)
}

func (w *fakeServer) project(name string) *carav1.Project {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.projects[name]
}

func (w *fakeServer) beat(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.beats[node] = time.Now()
	if n := w.nodes[node]; n != nil && n.Status.State == api.NodeNotReady {
		n = proto.CloneOf(n)
		n.Status.State = api.NodeReady
		n.Status.Conditions, _ = api.SetCondition(n.Status.Conditions, &carav1.Condition{Type: api.CondReady, Status: api.StatusTrue, Reason: api.ReasonHeartbeat}, time.Now())
		w.put(false, n)
	}
}

// Invoke answers the scheduler's calls.
func (w *fakeServer) Invoke(_ context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out proto.Message
	var err error
	switch req := args.(type) {
	case *carav1.ScheduleProjectRequest:
		out, err = w.schedule(req)
	case *carav1.ScheduleProjectsRequest:
		out = w.scheduleAll(req)
	case *carav1.MoveProjectRequest:
		out, err = w.move(req)
	case *carav1.RestoreProjectRequest:
		out, err = w.restore(req)
	case *carav1.GetRequest:
		if out, err = w.node(req.Name); err != nil {
			return err
		}
	case *carav1.MarkNodeNotReadyRequest:
		out, err = w.mark(req)
	case *carav1.MarkNodeDrainedRequest:
		out, err = w.drained(req)
	default:
		return fmt.Errorf("call of %s was not expected", method)
	}
	if err == nil {
		proto.Merge(reply.(proto.Message), out)
	}
	return err
}

func (w *fakeServer) node(name string) (*carav1.Node, error) {
	n, ok := w.nodes[name]
	if !ok {
		return nil, api.NotFound("no node %q", name)
	}
	n = proto.CloneOf(n)
	if at, ok := w.beats[name]; ok {
		n.Status.LastHeartbeat = timestamppb.New(at)
	}
	return n, nil
}

func (w *fakeServer) mark(req *carav1.MarkNodeNotReadyRequest) (*carav1.Node, error) {
	n, err := w.node(req.Name)
	if err != nil {
		return nil, err
	}
	if !proto.Equal(n.Status.LastHeartbeat, req.LastHeartbeat) {
		return nil, api.Conflict("heard of since")
	}
	n.Status.State = api.NodeNotReady
	n.Status.Conditions, _ = api.SetCondition(n.Status.Conditions, &carav1.Condition{
		Type: api.CondReady, Status: api.StatusFalse, Reason: "HeartbeatsStopped", Message: req.Message,
	}, time.Now())
	w.put(false, n)
	return n, nil
}

func (w *fakeServer) drained(req *carav1.MarkNodeDrainedRequest) (*carav1.Node, error) {
	n, err := w.node(req.Name)
	if err != nil {
		return nil, err
	}
	if n.Metadata.ResourceVersion != req.ResourceVersion || !n.GetSpec().GetDraining() {
		return nil, api.Conflict("changed since")
	}
	status := api.StatusTrue
	if req.Waits {
		status = api.StatusFalse
		w.waits.Add(1)
	}
	n.Status.Conditions, _ = api.SetCondition(n.Status.Conditions, &carav1.Condition{
		Type: api.CondDrained, Status: status, Reason: "Drained", Message: req.Message,
	}, time.Now())
	w.put(false, n)
	return n, nil
}

// homeless counts the projects that ran somewhere and do not run now.
func (w *fakeServer) homeless() int {
	n := 0
	for _, p := range w.projects {
		if p.Status.MovedFrom != "" {
			n++
		}
	}
	return n
}

func (w *fakeServer) schedule(req *carav1.ScheduleProjectRequest) (*carav1.Project, error) {
	p, ok := w.projects[req.Name]
	if !ok || p.Metadata.ResourceVersion != req.ResourceVersion {
		return nil, api.Conflict("changed since")
	}
	p = proto.CloneOf(p)
	st := p.Status
	to, status := st.Phase, api.StatusFalse
	switch req.Action {
	case "Bind":
		to, status, st.NodeRef, st.Epoch = api.PhaseScheduled, api.StatusTrue, req.NodeRef, st.Epoch+1
	case "Move":
		if st.Phase != api.PhaseScheduled && st.Phase != api.PhaseRunning || st.NodeRef == req.NodeRef {
			return nil, api.Conflict("%s on %s does not move to %s", st.Phase, st.NodeRef, req.NodeRef)
		}
		st.MovedFrom = cmp.Or(st.MovedFrom, st.NodeRef)
		st.Phase, to, status, st.NodeRef, st.Epoch = api.PhaseScheduled, api.PhaseScheduled, api.StatusTrue, req.NodeRef, st.Epoch+1
		req.Reason = "Scheduled"
	case api.ScheduleAcceptMove, api.ScheduleRefuseMove:
		return w.settleMove(p, req)
	case "Evict":
		st.MovedFrom = cmp.Or(st.MovedFrom, st.NodeRef)
		to, st.NodeRef = api.PhasePending, ""
	case "Explain":
		if st.NodeRef != "" {
			status = api.StatusTrue
		}
	case "Abandon":
		to = api.PhaseTerminated
	}
	if to != st.Phase {
		if err := api.CheckMove(api.Phase(st.Phase), api.Phase(to), api.RoleScheduler); err != nil {
			return nil, err
		}
	}
	st.Phase = to
	st.Conditions, _ = api.SetCondition(st.Conditions, &carav1.Condition{
		Type: api.CondScheduled, Status: status, Reason: req.Reason, Message: req.Message,
	}, time.Now())
	w.writes++
	w.put(false, p)
	return p, nil
}

func (w *fakeServer) scheduleAll(req *carav1.ScheduleProjectsRequest) *carav1.ScheduleProjectsResponse {
	out := &carav1.ScheduleProjectsResponse{}
	for _, d := range req.Decisions {
		r := &carav1.ScheduleProjectResult{}
		if p, err := w.schedule(d); err != nil {
			r.Code, r.Problem = int32(api.Code(err)), api.ProblemOf(err)
		} else {
			r.ResourceVersion, r.Epoch = p.Metadata.ResourceVersion, p.Status.Epoch
		}
		out.Results = append(out.Results, r)
	}
	return out
}

// NewStream answers Watch.
func (w *fakeServer) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &watchStream{ctx: ctx, w: w}, nil
}

type watchStream struct {
	grpc.ClientStream
	ctx  context.Context
	w    *fakeServer
	next int // of w.log; 0: the first state comes first
	sent bool
}

func (s *watchStream) SendMsg(any) error { return nil }
func (s *watchStream) CloseSend() error  { return nil }

func (s *watchStream) RecvMsg(m any) error {
	for {
		s.w.mu.Lock()
		msg, wake := s.message(), s.w.wake
		s.w.mu.Unlock()
		if msg != nil {
			proto.Merge(m.(proto.Message), msg)
			return nil
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-wake:
		}
	}
}

func (s *watchStream) message() *carav1.WatchResponse {
	if !s.sent {
		s.sent, s.next = true, len(s.w.log)
		msg := &carav1.WatchResponse{ResourceVersion: strconv.Itoa(s.w.revision), Synced: true}
		for _, p := range s.w.projects {
			msg.Changes = append(msg.Changes, &carav1.Change{Object: api.Wrap(p)})
		}
		for _, n := range s.w.nodes {
			msg.Changes = append(msg.Changes, &carav1.Change{Object: api.Wrap(n)})
		}
		return msg
	}
	if s.next == len(s.w.log) {
		return nil
	}
	s.next++
	return s.w.log[s.next-1]
}

// run runs a scheduler against the server until the returned func is called.
func run(t *testing.T, w *fakeServer, cfg Config) (stop func()) {
	t.Helper()
	return runOn(t, w, cfg)
}

// runOn is run over a connection to a server.
func runOn(t *testing.T, conn grpc.ClientConnInterface, cfg Config) (stop func()) {
	t.Helper()
	cfg.Conn, cfg.Logger = conn, slog.New(slog.DiscardHandler)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.check(t)
	}
}

// check compares the incrementally updated ledger with a new one.
func (s *Scheduler) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ledger.reserved) > 0 {
		t.Errorf("reservations are left: %v", s.ledger.reserved)
	}
	fresh := newLedger()
	names := []string{}
	for name := range s.ledger.nodes {
		names = append(names, name)
		fresh.nodes[name] = &Candidate{Name: name}
	}
	slices.Sort(names)
	for project, h := range s.ledger.placed {
		fresh.placed[project] = h
		fresh.count(h, +1)
	}
	for _, name := range names {
		have, want := s.ledger.nodes[name], fresh.nodes[name]
		if have.UsedCPU != want.UsedCPU || have.UsedMemory != want.UsedMemory || have.Projects != want.Projects || have.UsedSubnets != want.UsedSubnets {
			t.Errorf("ledger of %s is cpu %d memory %d projects %d subnets %d, want %d %d %d %d", name,
				have.UsedCPU, have.UsedMemory, have.Projects, have.UsedSubnets, want.UsedCPU, want.UsedMemory, want.Projects, want.UsedSubnets)
		}
	}
}
