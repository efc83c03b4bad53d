package apiserver

import (
	"context"
	"errors"
	"io"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// errLeft ends a session whose agent has closed its side.
var errLeft = errors.New("the agent has left")

// Connect is the agent's own stream. Down go the node's assignments and the ingress routes: all of them first, then what
// changes, worked out from the cache as transactions come by, so that an agent that reads slowly gets the newest state
// and not every step to it. Up come heartbeats.
func (s nodeService) Connect(stream carav1.NodeService_ConnectServer) error {
	node := identity.ActorOf(stream.Context()).Node()
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	if hello.GetHeartbeat().GetInfo() == nil || hello.GetInstanceId() == "" {
		return api.Invalid("the first message", api.Field("heartbeat", "needs info, and the message an instanceId"))
	}
	if err := s.heartbeat(stream.Context(), node, hello.GetHeartbeat(), true); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(stream.Context())
	me := &session{node: node, instance: hello.GetInstanceId(), here: admission.OnThisHost(ctx), end: end, ended: ctx.Done(), stream: stream}
	s.sessions.enter(me)
	defer s.sessions.leave(me)
	s.cfg.Logger.Info("agent connected", "node", node, "instance", me.instance)

	// Only the heartbeats' goroutine reads from the stream, and it ends when the handler returns: gRPC then fails Recv.
	s.guard.Go("Connect", func() error { return s.listen(ctx, me) }, end)
	end(s.serveAgent(ctx, me))
	err = context.Cause(ctx)
	s.cfg.Logger.Info("agent disconnected", "node", node, "instance", me.instance, "reason", err)
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// listen takes heartbeats until the stream ends. With each it looks whether the agent is still who it was: a stream
// lives longer than a certificate that is revoked.
func (s *Server) listen(ctx context.Context, me *session) error {
	for {
		req, err := me.stream.Recv()
		if errors.Is(err, io.EOF) {
			return errLeft
		}
		if err != nil {
			return err
		}
		if err := s.stillTrusted(ctx, me.node); err != nil {
			return err
		}
		if err := s.heartbeat(ctx, me.node, req.GetHeartbeat(), true); err != nil {
			return err
		}
		if err := s.release(ctx, me.node, req.GetReleased()); err != nil {
			return err
		}
	}
}

func (s *Server) stillTrusted(ctx context.Context, node string) error {
	actor, err := s.network(ctx)
	if err != nil {
		return err
	}
	if actor.Node() != node {
		return api.Unauthenticated("this connection is no longer node %q's", node)
	}
	return nil
}

// serveAgent sends what the node has to know until ctx ends.
func (s *Server) serveAgent(ctx context.Context, me *session) error {
	err := me.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Welcome{Welcome: &carav1.Welcome{
		ClusterId:         s.cfg.ClusterID,
		HeartbeatInterval: durationpb.New(heartbeatInterval),
		ServerTime:        timestamppb.New(s.db.Now()),
	}}})
	if err != nil {
		return err
	}
	work, ctx := s.guard.Group(ctx, "Connect", guard.Unlimited)
	assigned := &assignments{server: s, me: me, sent: map[string]sentAssignment{}, asked: map[string]int32{}}
	routes := newRouteFeed(s, me)
	work.Go(func() error { return routes.run(ctx) })
	work.Go(func() error {
		return s.db.Follow(ctx, state.Follower{
			Kinds: []string{api.KindProject},
			First: func(objects []state.Change) error {
				for i := range objects {
					routes.project(objects[i].Name)
					if err := assigned.project(objects[i].Name); err != nil {
						return err
					}
				}
				return nil
			},
			Synced: func(int64) error {
				nodes, _ := state.List[*carav1.Node](s.db.Cache, "", "")
				for _, n := range nodes {
					routes.node(n.GetMetadata().GetName())
				}
				if err := routes.full(); err != nil {
					return err
				}
				return me.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Synced{Synced: &carav1.Synced{}}})
			},
			Commit: func(tx state.Transaction) error {
				for i := range tx.Changes {
					if err := s.agentChange(&tx.Changes[i], assigned, routes); err != nil {
						return err
					}
				}
				return nil
			},
			Bookmark: func(int64) error { return nil },
		})
	})
	return work.Wait()
}

// agentChange passes on what one change means to one node.
func (s *Server) agentChange(ch *state.Change, assigned *assignments, routes *routeFeed) error {
	switch ch.Kind {
	case api.KindProject:
		routes.project(ch.Name)
		return assigned.project(ch.Name)
	case api.KindSecret:
		return assigned.secret(ch.Name)
	case api.KindToken:
		if node, ok := identity.NodeOfToken(ch.Name); ok {
			routes.node(node)
		}
	case api.KindNode:
		for _, project := range s.db.Cache.ProjectsOnNode(ch.Name) {
			routes.project(project)
		}
	}
	return nil
}
