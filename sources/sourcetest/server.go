package sourcetest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
)

// Server implements the part of the API that sources use.
type Server struct {
	carav1.UnimplementedSourceServiceServer
	carav1.UnimplementedEventServiceServer
	carav1.UnimplementedFileServiceServer
	*fakecluster.Cluster

	mu        sync.Mutex
	secrets   map[string]map[string][]byte // by source
	hints     map[chan string]bool
	events    []*carav1.Event
	polls     map[string]*carav1.PollStatus
	polled    map[string]int
	allPolls  int
	nextPoll  chan struct{} // closed and replaced at each poll
	publishes []Publish
	writes    int
	halfway   bool
	blobs     map[string]string // contents of files by digest
	puts      int
}

// Publish is one received snapshot.
type Publish struct {
	Head     *carav1.Snapshot
	Upserts  []*carav1.ClaimSpec
	Absent   []string
	Messages int
}

// NewServer returns a server without objects.
func NewServer() *Server {
	return &Server{
		Cluster: fakecluster.New(), secrets: map[string]map[string][]byte{},
		polls: map[string]*carav1.PollStatus{}, polled: map[string]int{}, hints: map[chan string]bool{}, nextPoll: make(chan struct{}),
	}
}

// Conn returns a connection to the server.
func (s *Server) Conn() grpc.ClientConnInterface {
	ch := s.Channel()
	carav1.RegisterSourceServiceServer(ch, s)
	carav1.RegisterEventServiceServer(ch, s)
	carav1.RegisterFileServiceServer(ch, s)
	return ch
}

// Secret sets the values of a source's secretRef.
func (s *Server) Secret(source string, values map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[source] = values
}

// Deliver sends a webhook hint about a source to all listeners, and returns their number.
func (s *Server) Deliver(source string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.hints {
		select {
		case ch <- source:
		default: // full: no relevant stream is that slow
		}
	}
	return len(s.hints)
}

// CutHints ends every stream of hints.
func (s *Server) CutHints() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.hints {
		close(ch)
		delete(s.hints, ch)
	}
}

// WatchHints streams the hints of Deliver.
func (s *Server) WatchHints(_ *emptypb.Empty, out grpc.ServerStreamingServer[carav1.Hint]) error {
	ch := make(chan string, 1000)
	s.mu.Lock()
	s.hints[ch] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.hints, ch)
	}()
	for {
		select {
		case source, ok := <-ch:
			if !ok {
				return api.Errorf(codes.Unavailable, "Unavailable", "cut")
			}
			if err := out.Send(&carav1.Hint{Source: source}); err != nil {
				return err
			}
		case <-out.Context().Done():
			return context.Cause(out.Context())
		}
	}
}

// locked returns what read returns under the lock.
func locked[T any](s *Server, read func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return read()
}

// Publishes returns the received snapshots.
func (s *Server) Publishes() []Publish {
	return locked(s, func() []Publish { return slices.Clone(s.publishes) })
}

// Writes returns the number of transactions and events that sources caused.
func (s *Server) Writes() int {
	return locked(s, func() int { return s.writes })
}

// Polled returns the number of reported polls of a source.
func (s *Server) Polled(source string) int {
	return locked(s, func() int { return s.polled[source] })
}

// Polls returns the number of reported polls of all sources.
func (s *Server) Polls() int {
	return locked(s, func() int { return s.allPolls })
}

// NextPoll returns a channel that is closed at the next poll.
func (s *Server) NextPoll() <-chan struct{} {
	return locked(s, func() <-chan struct{} { return s.nextPoll })
}

// Poll returns the last reported poll.
func (s *Server) Poll(source string) *carav1.PollStatus {
	return locked(s, func() *carav1.PollStatus { return s.polls[source] })
}

// Events returns the recorded events.
func (s *Server) Events() []*carav1.Event {
	return locked(s, func() []*carav1.Event { return slices.Clone(s.events) })
}

// CreateEvent records an event.
func (s *Server) CreateEvent(_ context.Context, req *carav1.CreateEventRequest) (*carav1.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, req.Event)
	s.writes++
	return req.Event, nil
}

// GetSourceSecret returns what Secret set.
func (s *Server) GetSourceSecret(_ context.Context, req *carav1.GetSourceSecretRequest) (*carav1.GetSourceSecretResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values, ok := s.secrets[req.Name]
	if !ok {
		return nil, api.Errorf(codes.NotFound, "NotFound", "no such secret")
	}
	return &carav1.GetSourceSecretResponse{Git: values, Decryption: values}, nil
}

// UpdateSourceStatus keeps polls in memory and writes the rest if it differs.
func (s *Server) UpdateSourceStatus(_ context.Context, req *carav1.UpdateSourceStatusRequest) (*carav1.Source, error) {
	var out *carav1.Source
	err := s.Update(func(tx *fakecluster.Tx) error {
		src := fakecluster.Get[*carav1.Source](tx, req.Name)
		if src == nil || src.Metadata.Uid != req.Uid {
			return api.Errorf(codes.NotFound, "NotFound", "source %s is gone", req.Name)
		}
		if src.Status == nil {
			src.Status = &carav1.SourceStatus{}
		}
		before := proto.CloneOf(src)
		for _, c := range req.Conditions {
			src.Status.Conditions, _ = api.SetCondition(src.Status.Conditions, c, src.Metadata.CreationTimestamp.AsTime())
		}
		if req.HandledToken != nil {
			src.Status.HandledToken = max(src.Status.HandledToken, *req.HandledToken)
		}
		if out = src; !proto.Equal(before, src) {
			tx.Put(src)
			s.count()
		}
		return nil
	})
	if err == nil && req.Poll != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.polls[req.Name] = req.Poll
		s.polled[req.Name]++
		s.allPolls++
		close(s.nextPoll)
		s.nextPoll = make(chan struct{})
	}
	return proto.CloneOf(out), err
}

func (s *Server) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
}

// FailHalfway makes the next publication fail after its snapshot is stored, as if the Secrets that left the source could not be
// deleted.
func (s *Server) FailHalfway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halfway = true
}

// fails reports whether a publication fails after its snapshot is stored.
func (s *Server) fails() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fails := s.halfway
	s.halfway = false
	return fails
}

// PublishSnapshot stores a snapshot in one transaction, if it is the next one of its source.
func (s *Server) PublishSnapshot(in grpc.ClientStreamingServer[carav1.PublishSnapshotRequest, carav1.PublishSnapshotResponse]) error {
	var all *carav1.PublishSnapshotRequest
	messages := 0
	for {
		msg, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		messages++
		if proto.Size(msg) > 2<<20 {
			return api.Errorf(codes.ResourceExhausted, api.ReasonTooLarge, "message of %d bytes", proto.Size(msg))
		}
		if all == nil {
			all = proto.CloneOf(msg)
			continue
		}
		all.Upserts, all.Absent = append(all.Upserts, msg.Upserts...), append(all.Absent, msg.Absent...)
	}
	if all.GetHead() == nil {
		return api.Errorf(codes.InvalidArgument, "Invalid", "the first message has no head")
	}
	if err := s.store(all, messages); err != nil {
		return err
	}
	if s.fails() {
		return api.Errorf(codes.Unavailable, "Unavailable", "halfway")
	}
	stored := fakecluster.Read[*carav1.Source](s.Cluster, all.Source).Metadata.ResourceVersion
	return in.SendAndClose(&carav1.PublishSnapshotResponse{ResourceVersion: stored})
}

func (s *Server) store(all *carav1.PublishSnapshotRequest, messages int) error {
	return s.Update(func(tx *fakecluster.Tx) error {
		src := fakecluster.Get[*carav1.Source](tx, all.Source)
		if src == nil || src.Metadata.Uid != all.SourceUid {
			return api.Errorf(codes.NotFound, "NotFound", "source %s is gone", all.Source)
		}
		if want := src.Status.GetSnapshot().GetSequence() + 1; all.Head.Sequence != want {
			return api.Errorf(codes.Aborted, "Conflict", "sequence is %s", strconv.FormatInt(want, 10))
		}
		if src.Status == nil {
			src.Status = &carav1.SourceStatus{}
		}
		src.Status.Snapshot = all.Head
		tx.Put(src)
		for _, spec := range all.Upserts {
			name := all.Source + "/" + spec.Project.Metadata.Name
			c := fakecluster.Get[*carav1.Claim](tx, name)
			if c == nil {
				c = &carav1.Claim{Metadata: &carav1.ObjectMeta{Name: name}}
			}
			c.Spec = spec
			tx.Put(c)
		}
		for _, project := range all.Absent {
			c := fakecluster.Get[*carav1.Claim](tx, all.Source+"/"+project)
			if c == nil {
				return api.Errorf(codes.InvalidArgument, "Invalid", "no claim of %s", project)
			}
			c.Spec.Present = false
			tx.Put(c)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writes++
		s.publishes = append(s.publishes, Publish{Head: all.Head, Upserts: all.Upserts, Absent: all.Absent, Messages: messages})
		return nil
	})
}
