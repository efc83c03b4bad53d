package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/text"
)

// ErrSuperseded says that a newer agent took this node's name over: two would fight over the same containers.
var ErrSuperseded = errors.New("another agent has taken over this node's name")

// connect keeps a stream to the server open for as long as ctx lasts.
func (a *Agent) connect(ctx context.Context) error {
	backoff := loop.NewBackoff(200*time.Millisecond, min(a.cfg.MaxBackoff, maxReconnect))
	told := false
	var streams sync.WaitGroup // they outlive their session by what they have to clear away
	defer streams.Wait()
	serve := func(stream func(outer context.Context)) { streams.Go(func() { stream(ctx) }) }
	for ctx.Err() == nil {
		err := a.session(ctx, serve, func() { told = false })
		a.link(false)
		switch {
		case ctx.Err() != nil:
			return nil
		case api.Code(err) == codes.Aborted:
			return fmt.Errorf("%w: %w", ErrSuperseded, err)
		}
		if nobodyListens(err) {
			kick(a.nobody)
		}
		if !told {
			a.log.Warn("connection to the server lost", "error", err)
			told = true
		}
		backoff.Wait(ctx)
	}
	return nil
}

// maxReconnect bounds the wait for the next try: a server that was started again is to have its nodes back at once.
const maxReconnect = time.Second

// nobodyListens says whether a connection was refused by the machine of the server itself, which gRPC passes on as text
// alone. A server that is on its way out, or cannot be reached, may well be alive and speak to others.
func nobodyListens(err error) bool {
	return api.Code(err) == codes.Unavailable && strings.HasSuffix(strings.TrimRight(err.Error(), `"`), syscall.ECONNREFUSED.Error())
}

// session is one stream, from its first message to its end. What the server asks for on it is served in goroutines.
func (a *Agent) session(ctx context.Context, serve func(func(outer context.Context)), connected func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	stream, err := a.nodes.Connect(ctx)
	if err != nil {
		return fmt.Errorf("connect to the server: %w", err)
	}
	interval := make(chan time.Duration, 1)
	broken := make(chan error, 1)
	helpers.Go(func() {
		if err := a.heartbeats(ctx, stream, interval); err != nil {
			broken <- err
			cancel()
		}
	})
	named := map[string]bool{}
	for {
		m, err := stream.Recv()
		if err != nil {
			select {
			case sendErr := <-broken:
				if !errors.Is(sendErr, io.EOF) { // EOF only says that Recv knows more
					return sendErr
				}
			default:
			}
			return fmt.Errorf("hear from the server: %w", err)
		}
		if w := m.GetWelcome(); w != nil {
			if w.GetClusterId() != a.cfg.ClusterID {
				return fmt.Errorf("the server is of cluster %q, this node of %q: nothing is changed; join this node to the new cluster",
					w.GetClusterId(), a.cfg.ClusterID)
			}
			connected()
			a.link(true)
			a.reports.renew()
			a.log.Info("connected")
			interval <- w.GetHeartbeatInterval().AsDuration()
			continue
		}
		a.hear(ctx, m, named, serve)
	}
}

// hear takes in one message. named collects what the server has named so far; nil once it is synced.
func (a *Agent) hear(ctx context.Context, m *carav1.ConnectResponse, named map[string]bool, serve func(func(outer context.Context))) {
	switch m := m.GetMessage().(type) {
	case *carav1.ConnectResponse_Assignment:
		if name := m.Assignment.GetProject().GetMetadata().GetName(); !a.refused(name) {
			named[name] = true
			a.assign(m.Assignment)
		}
	case *carav1.ConnectResponse_Unassigned:
		if name := m.Unassigned.GetName(); !a.refused(name) {
			a.unassign(name, m.Unassigned.GetUid(), m.Unassigned.GetEpoch())
		}
	case *carav1.ConnectResponse_Synced:
		a.sync(named)
	case *carav1.ConnectResponse_Routes:
		if a.cfg.OnRoutes != nil {
			a.cfg.OnRoutes(m.Routes)
		}
	case *carav1.ConnectResponse_OpenStream:
		serve(func(outer context.Context) { a.streams.Serve(ctx, outer, m.OpenStream) })
	}
}

// infoPatience is how long a connection waits for the engine to say what the machine is.
const infoPatience = 3 * time.Second

// heartbeats sends signs of life: the first at once and with the node's info, which the server answers with its
// welcome; then one each interval, and one whenever the engine goes away or comes back. None of them waits for the engine.
func (a *Agent) heartbeats(ctx context.Context, stream grpc.BidiStreamingClient[carav1.ConnectRequest, carav1.ConnectResponse], interval <-chan time.Duration) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.machineKnown:
	case <-time.After(infoPatience):
	}
	var told *carav1.NodeInfo
	var conditions []*carav1.Condition
	every := 5 * time.Second
	for {
		conditions = a.conditions(conditions)
		beat := &carav1.Heartbeat{Conditions: conditions}
		if info := a.info(); !proto.Equal(info, told) {
			beat.Info, told = info, info
		}
		if err := stream.Send(&carav1.ConnectRequest{Heartbeat: beat, InstanceId: a.instance, Released: a.gone()}); err != nil {
			return fmt.Errorf("send a heartbeat: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case d := <-interval:
			every = cmp.Or(d, every)
		case <-a.beat:
		case <-time.After(every):
		}
	}
}

// refused says whether a name from the server is none. It becomes a part of names of files and of what the engine has,
// so that nothing may be done for it, not even report.
func (a *Agent) refused(name string) bool {
	if api.IsName(name) {
		return false
	}
	a.log.Error("refused an assignment: its project has no valid name", "project", text.Line(text.Clip(name, 100)))
	return true
}
