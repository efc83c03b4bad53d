package dispatch

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// errLeft ends a session whose agent closed its side.
var errLeft = errors.New("the agent has left")

// Connect is the agent's own stream. The server sends the node's assignments and the ingress routes, first all of them and
// then the changes. Each message is computed from the cache when it is sent, so a slow agent gets the newest state and not
// every step. The agent sends heartbeats.
func (d *Dispatcher) Connect(stream carav1.NodeService_ConnectServer) error {
	node := identity.ActorOf(stream.Context()).Node()
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	if hello.GetHeartbeat().GetInfo() == nil || hello.GetInstanceId() == "" {
		return api.Invalid("the first message", api.Field("heartbeat", "needs info, and the message an instanceId"))
	}
	if err := d.introduce(stream.Context(), node, hello.GetCapabilities()); err != nil {
		return err
	}
	if err := d.hear(node, hello.GetHeartbeat(), true); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(stream.Context())
	me := &Session{
		Node: node, Instance: hello.GetInstanceId(), certificate: identity.ActorOf(ctx).Token, here: d.onThisHost(ctx),
		capabilities: hello.GetCapabilities(), peers: hello.GetPeersDigest(), End: end, Ended: ctx.Done(), Stream: stream,
		obeyed: make(chan struct{}),
	}
	d.Sessions.Enter(me)
	defer d.Holders().leave(me)
	if err := d.Holders().hold(ctx, me); err != nil {
		return err
	}
	// The node becomes Ready when the directory says who has its agent. Before, another server that has not heard of it yet would make it
	// NotReady again.
	if err := d.record(stream.Context(), node, hello.GetHeartbeat(), true); err != nil {
		return err
	}
	if hello.GetConfirms() {
		d.Holders().confirm(me, hello.GetAnswering())
	}
	routes := newRouteFeed(d, me)
	defer d.Routes.leave(routes)
	d.DB.Logger.Info("agent connected", "node", node, "instance", me.Instance)

	// Only the heartbeat goroutine reads from the stream. It ends when the handler returns, because gRPC then fails Recv.
	d.Guard.Go("Connect", func() error { return d.listen(ctx, me, routes) }, end)
	end(d.serveAgent(ctx, me, routes, hello.GetAskHosts()))
	err = context.Cause(ctx)
	d.DB.Logger.Info("agent disconnected", "node", node, "instance", me.Instance, "reason", err)
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// listen receives heartbeats until the stream ends. With each one it checks the agent's credentials again, because a stream
// can outlive a certificate that is revoked.
func (d *Dispatcher) listen(ctx context.Context, me *Session, routes *routeFeed) error {
	for {
		req, err := me.Stream.Recv()
		if errors.Is(err, io.EOF) {
			return errLeft
		}
		if err != nil {
			return err
		}
		if err := d.stillTrusted(ctx, me.Node); err != nil {
			d.Holders().endFenced(me.certificate) // first, because its reason is clearer, and the first reason counts
			return err
		}
		if err := d.heartbeat(ctx, me.Node, req.GetHeartbeat(), true); err != nil {
			return err
		}
		if req.GetConfirms() {
			d.Holders().confirm(me, req.GetAnswering())
		}
		if err := (Recovery{d.DB}).obey(ctx, me, req.GetObeyed()); err != nil {
			return err
		}
		if err := d.tellServers(me); err != nil {
			return err
		}
		if err := d.Routes.serves(routes, req.GetForgetHosts(), req.GetAskHosts()); err != nil {
			return err
		}
		if err := (Handover{d.DB}).release(ctx, me.Node, req.GetReleased()); err != nil {
			return heartbeatError(err)
		}
	}
}

func (d *Dispatcher) stillTrusted(ctx context.Context, node string) error {
	actor, err := d.Authenticate(ctx)
	if err != nil {
		return err
	}
	if actor.Node() != node {
		return api.Unauthenticated("this connection is no longer node %q's", node)
	}
	return nil
}

// serveAgent sends the node's assignments and routes until ctx ends. The agent knows the routes of some hosts.
func (d *Dispatcher) serveAgent(ctx context.Context, me *Session, routes *routeFeed, known []string) error {
	asks, err := Recovery{d.DB}.asks(ctx, me)
	if err != nil {
		return heartbeatError(err)
	}
	err = me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Welcome{Welcome: &carav1.Welcome{
		ClusterId:         d.ClusterID,
		HeartbeatInterval: durationpb.New(HeartbeatInterval),
		ServerTime:        timestamppb.New(d.DB.Now()),
		RoutesOnDemand:    true,
		AskObeyed:         asks,
	}}})
	if err != nil {
		return err
	}
	news := newAssignmentFeed()
	d.deliveries.enter(me.Node, news)
	defer d.deliveries.leave(me.Node, news)
	assigned := &assignments{server: d, me: me, news: news, sent: map[string]sentAssignment{}, asked: map[string]int32{}, doomed: map[string]bool{}, copies: map[string]bool{}, restores: map[string]restoreRequest{}}
	if err := d.sendAll(ctx, me, asks, known, assigned, routes); err != nil {
		return err
	}
	news.begin()
	return d.sendChanges(ctx, assigned, routes)
}

// sendAll sends the complete state once, unless the server begins to shut down.
func (d *Dispatcher) sendAll(ctx context.Context, me *Session, asks bool, known []string, assigned *assignments, routes *routeFeed) error {
	sent, stop := context.WithCancel(ctx)
	defer stop()
	d.Guard.Go("Connect", func() error {
		select {
		case <-d.DB.Draining:
			me.End(state.ErrDraining())
		case <-sent.Done():
		}
		return nil
	}, func(error) {})
	if err := (Recovery{d.DB}).await(ctx, me, asks); err != nil {
		return err
	}
	if err := assigned.send(assignmentsDue{all: true}); err != nil {
		return err
	}
	if err := routes.full(ctx, d.DB.Cache.View().Changed, known); err != nil {
		return err
	}
	return me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Synced{Synced: &carav1.Synced{}}})
}

// sendChanges sends what changes until ctx ends or the server begins to shut down. It is one goroutine for all feeds of a session,
// because with thousands of agents the stacks of their goroutines need more memory than anything else.
func (d *Dispatcher) sendChanges(ctx context.Context, assigned *assignments, routes *routeFeed) error {
	var due <-chan time.Time // when changed routes are sent; nil if none have changed
	for {
		select {
		case <-assigned.news.noted:
			if err := assigned.send(assigned.news.take()); err != nil {
				return err
			}
		case <-routes.noted:
			if due == nil {
				due = time.After(feedDelay)
			}
		case <-due:
			due = nil
			if err := routes.flush(false); err != nil {
				return err
			}
		case <-d.DB.Draining:
			return state.ErrDraining()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
