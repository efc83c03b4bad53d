package agent_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// server is the server's side of an agent's connection, with the real server's phase transitions.
type server struct {
	carav1.UnimplementedNodeServiceServer
	carav1.UnimplementedProjectServiceServer
	carav1.UnimplementedEventServiceServer
	cluster string
	conn    *grpc.ClientConn
	grpc    *grpc.Server
	socket  string // where it listens for agents of other processes; empty: nowhere yet

	mu       sync.Mutex
	projects map[string]*carav1.Project
	secrets  map[string]map[string][]byte
	auth     map[string]*carav1.RegistryAuth
	conns    map[chan *carav1.ConnectResponse]context.CancelFunc
	beats    []*carav1.Heartbeat
	phases   map[string][]string
	reports  int
	events   []*carav1.Event
	refuse   bool
	refused  int            // how often
	newer    error          // what a connection ends with
	asks     bool           // what the agent has obeyed
	obeyed   *carav1.Obeyed // its answer
	hold     chan struct{}  // Attach reads on once it is closed; nil: at once
	changed  chan struct{}
	lines    map[string][]*carav1.AttachRequest
	streams  map[string]grpc.BidiStreamingServer[carav1.AttachRequest, carav1.AttachResponse]
	leave    map[string]chan struct{} // closed where the caller of a stream has left
	closed   map[string]bool
	heldVolumes
	moved []*carav1.MoveReport // all, of any project
}

func newServer(t testing.TB, cluster string) *server {
	s := &server{
		cluster: cluster, projects: map[string]*carav1.Project{}, secrets: map[string]map[string][]byte{},
		conns: map[chan *carav1.ConnectResponse]context.CancelFunc{}, phases: map[string][]string{},
		changed: make(chan struct{}), lines: map[string][]*carav1.AttachRequest{}, closed: map[string]bool{},
		streams: map[string]grpc.BidiStreamingServer[carav1.AttachRequest, carav1.AttachResponse]{}, leave: map[string]chan struct{}{},
	}
	listener := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	s.grpc = g
	carav1.RegisterNodeServiceServer(g, s)
	carav1.RegisterProjectServiceServer(g, s)
	carav1.RegisterEventServiceServer(g, s)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///server", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// listen makes the server heard outside of this process, and returns where.
func (s *server) listen(t testing.TB) string {
	t.Helper()
	if s.socket != "" {
		return s.socket
	}
	dir, err := os.MkdirTemp("", "cara") //nolint:usetesting // a test's own folder may be too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(l) }()
	t.Cleanup(func() {
		s.grpc.Stop()
		if err := errors.Join(<-served, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	s.socket = l.Addr().String()
	return s.socket
}

func (s *server) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Connect implements the agent's stream.
func (s *server) Connect(stream grpc.BidiStreamingServer[carav1.ConnectRequest, carav1.ConnectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	out := make(chan *carav1.ConnectResponse, 10000)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	s.mu.Lock()
	if s.refuse {
		s.refused++
		s.mu.Unlock()
		return status.Error(codes.Unavailable, "the server is away")
	}
	if s.newer != nil {
		s.refused++
		defer s.mu.Unlock()
		return s.newer
	}
	s.beats = append(s.beats, first.GetHeartbeat())
	s.heed(first.GetHeartbeat().GetVolumes())
	out <- &carav1.ConnectResponse{Message: &carav1.ConnectResponse_Welcome{Welcome: &carav1.Welcome{
		ClusterId: s.cluster, HeartbeatInterval: durationpb.New(200 * time.Millisecond), AskObeyed: s.asks,
	}}}
	for name := range s.projects {
		out <- s.assignment(name)
	}
	s.volumeRequests(out)
	out <- &carav1.ConnectResponse{Message: &carav1.ConnectResponse_Synced{Synced: &carav1.Synced{}}}
	s.conns[out] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, out)
	}()
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				cancel()
				return
			}
			s.mu.Lock()
			s.beats = append(s.beats, m.GetHeartbeat())
			s.heed(m.GetHeartbeat().GetVolumes())
			s.obeyed = cmp.Or(m.GetObeyed(), s.obeyed)
			s.change()
			s.mu.Unlock()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return status.Error(codes.Unavailable, "the link is cut")
		case m := <-out:
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// answer returns what the agent has obeyed, or nil as long as it has not answered.
func (s *server) answer() *carav1.Obeyed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.obeyed
}

// Attach collects what an agent streams, until its end or until the caller leaves.
func (s *server) Attach(stream grpc.BidiStreamingServer[carav1.AttachRequest, carav1.AttachResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	id, left, ended := first.GetStreamId(), make(chan struct{}), make(chan struct{})
	s.mu.Lock()
	hold := s.hold
	s.streams[id], s.leave[id] = stream, left
	s.change()
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	go func() {
		defer close(ended)
		for {
			m, err := stream.Recv()
			s.mu.Lock()
			if err != nil {
				s.closed[id] = true
			} else {
				s.lines[id] = append(s.lines[id], m)
			}
			s.change()
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	select {
	case <-left:
	case <-ended:
	}
	return nil
}

func (s *server) assignment(name string) *carav1.ConnectResponse {
	versions := map[string]string{}
	for ref, value := range s.secrets[name] {
		versions[ref] = fmt.Sprintf("%x", sha256.Sum256(value))
	}
	return &carav1.ConnectResponse{Message: &carav1.ConnectResponse_Assignment{Assignment: &carav1.Assignment{
		Project: proto.CloneOf(s.projects[name]), Secrets: s.secrets[name], RegistryAuth: s.auth, SecretVersions: versions,
	}}}
}

func (s *server) send(m *carav1.ConnectResponse) {
	for out := range s.conns {
		out <- m
	}
}

// UpdateProjectStatus takes a report in, or refuses it as the real server does.
func (s *server) UpdateProjectStatus(_ context.Context, r *carav1.UpdateProjectStatusRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.projects[r.GetName()]
	switch {
	case s.refuse:
		return nil, status.Error(codes.Unavailable, "the server is away")
	case p == nil:
		return nil, status.Error(codes.NotFound, "no such project")
	case p.GetMetadata().GetUid() != r.GetUid() || p.GetStatus().GetEpoch() != r.GetEpoch():
		return nil, status.Error(codes.Aborted, "stale epoch")
	}
	if r.GetPhase() != "" {
		if r.GetObservedGeneration() != p.GetMetadata().GetGeneration() {
			return nil, status.Error(codes.Aborted, "older generation")
		}
		if err := api.CheckMove(api.Phase(p.GetStatus().GetPhase()), api.Phase(r.GetPhase()), api.RoleAgent); err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	if r.GetMove() != nil {
		s.moved = append(s.moved, r.GetMove())
	}
	p = proto.CloneOf(p)
	p.Status.Conditions, _ = api.RemoveCondition(p.Status.Conditions, api.CondBackupBlocked)
	for _, c := range r.GetConditions() {
		p.Status.Conditions, _ = api.SetCondition(p.Status.Conditions, c, time.Now())
	}
	if r.GetBackup() != nil {
		p.Status.Backup = r.GetBackup()
	}
	p.Status.Services, p.Status.ObservedGeneration = r.GetServices(), r.GetObservedGeneration()
	if r.GetPhase() != "" && p.Status.Phase != r.GetPhase() {
		p.Status.Phase = r.GetPhase()
		s.phases[r.GetName()] = append(s.phases[r.GetName()], r.GetPhase())
	}
	s.projects[r.GetName()] = p
	s.reports++
	if p.Status.Phase == api.PhaseTerminated {
		delete(s.projects, r.GetName())
		s.send(unassigned(p))
	}
	s.change()
	return &emptypb.Empty{}, nil
}

// CreateEvent records the events about the agent's own node.
func (s *server) CreateEvent(_ context.Context, r *carav1.CreateEventRequest) (*carav1.Event, error) {
	if err := protovalidate.Validate(r); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, r.GetEvent())
	return r.GetEvent(), nil
}

// told counts the events of a reason.
func (s *server) told(reason string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.events {
		if e.GetReason() == reason {
			n++
		}
	}
	return n
}

func unassigned(p *carav1.Project) *carav1.ConnectResponse {
	return &carav1.ConnectResponse{Message: &carav1.ConnectResponse_Unassigned{Unassigned: &carav1.Unassigned{
		Name: p.GetMetadata().GetName(), Uid: p.GetMetadata().GetUid(),
	}}}
}

// put assigns a project, or changes its spec.
func (s *server) put(name string, spec *carav1.ProjectSpec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.projects[name]
	if p == nil {
		p = &carav1.Project{
			ApiVersion: api.APIVersion, Kind: api.KindProject,
			Metadata: &carav1.ObjectMeta{Name: name, Uid: fmt.Sprintf("uid-%s-%d", name, s.reports)},
			Status:   &carav1.ProjectStatus{Epoch: 1},
		}
	}
	p = proto.CloneOf(p)
	p.Spec = spec
	useVolumes(p)
	p.Metadata.Generation++
	if p.Status.Phase == api.PhaseFailed {
		p.Status.Epoch++
	}
	p.Status.Phase = api.PhaseScheduled
	s.projects[name] = p
	s.send(s.assignment(name))
}

// edit changes a project's status as the server would, and notifies the agent.
func (s *server) edit(name string, change func(*carav1.Project)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := proto.CloneOf(s.projects[name])
	change(p)
	s.projects[name] = p
	s.send(s.assignment(name))
}

func (s *server) terminate(name string) {
	s.edit(name, func(p *carav1.Project) { p.Status.Phase = api.PhaseTerminating })
}

// move takes a project from the node.
func (s *server) move(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.projects[name]
	delete(s.projects, name)
	s.send(unassigned(p))
}

// away cuts the link and refuses new ones, or lets them in again.
func (s *server) away(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = yes
	if yes {
		for _, cancel := range s.conns {
			cancel()
		}
	}
}

func (s *server) refusals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// reported counts the reports that were taken in.
func (s *server) reported() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports
}

// phasesOf are the phases that a project's reports moved it to.
func (s *server) phasesOf(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.phases[name])
}

// supersede makes the server end connections with an error, or not any more.
func (s *server) supersede(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newer = why
}
