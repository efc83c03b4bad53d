// Package peers connects a server with the others of its cluster. It carries a call to the server that has a node's agent, such as
// logs after a push, and hears from each server what only that one knows: heartbeats, polls, and the webhook of a push.
//
// Invariants:
//
//   - Servers prove who they are with a certificate of the cluster, in both directions, and use the address and the services that
//     clients use.
//   - A call goes to one other server at most: that one does not pass it on.
//   - The other server believes who the caller is, and looks up the caller's rights itself.
//   - A server that hangs costs one stream and its own news. Nothing here waits for all servers.
package peers

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	followAgain  = 500 * time.Millisecond // after the stream of news has broken
	newsMissing  = 10 * time.Second       // from then on the log says so
	pingAfter    = 10 * time.Second
	pingTimeout  = 5 * time.Second
	probeTimeout = 2 * time.Second
	connTimeout  = 2 * time.Second // a call waits so long for a connection that is not there
	connectAgain = time.Second     // at the latest, after an attempt that failed
	goneTimeout  = 5 * time.Second
	maxNewsBytes = 16 << 20
	window       = 256 << 10 // unread bytes of one stream: nothing else limits what a slow reader keeps in memory
	connWindow   = 4 << 20   // bytes of all streams that are on their way from one server: gRPC confirms them before they are read
	nextProtocol = "h2"
	maxFollowers = 64 // streams of news that other servers have open here
)

// Peers are the other servers. Run keeps a connection to each.
type Peers struct {
	Directory directory.Directory
	Identity  *identity.Identity
	Live      *live.State
	DB        *state.DB
	Guard     guard.Guard

	followers atomic.Int32
	seemed    seemedEnded

	mu     sync.Mutex
	others map[string]*peer // by ID
}

// peer is another server, while the directory has it.
type peer struct {
	id, address string
	conn        *grpc.ClientConn
	stop        context.CancelFunc
	ended       <-chan struct{}
	silence     silence      // only follow uses it
	synced      atomic.Bool  // its news are complete
	revision    atomic.Int64 // that it has reached
}

// Run keeps the connections to the other servers until ctx ends.
func (p *Peers) Run(ctx context.Context) error {
	defer p.update(ctx, nil)
	return p.Directory.Follow(ctx, func(nodes []string) {
		if nodes == nil {
			p.update(ctx, p.Directory.Servers())
		}
	})
}

// update connects to new servers, and closes the connections to those that are gone.
func (p *Peers) update(ctx context.Context, servers map[string]*carav1.Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, other := range p.others {
		if s := servers[id]; s == nil || s.GetAddress() != other.address {
			delete(p.others, id)
			other.stop()
			_ = other.conn.Close() // its streams end
			<-other.ended
			if s == nil {
				p.Live.Hints.ForgetServer(id)
			}
		}
	}
	for id, s := range servers {
		if id == p.Directory.Self() || s.GetAddress() == "" || p.others[id] != nil {
			continue
		}
		other, err := p.connect(ctx, id, s.GetAddress())
		if err != nil {
			p.DB.Logger.Warn("another server cannot be connected to", "server", id, "address", s.GetAddress(), "error", err)
			continue
		}
		if p.others == nil {
			p.others = map[string]*peer{}
		}
		p.others[id] = other
	}
}

// connect begins to follow another server.
func (p *Peers) connect(ctx context.Context, id, address string) (*peer, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(p.Identity.PeerTLSConfig(nextProtocol))),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectAgain / 10, Multiplier: backoff.DefaultConfig.Multiplier, Jitter: backoff.DefaultConfig.Jitter, MaxDelay: connectAgain},
			MinConnectTimeout: pingTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxNewsBytes)),
		grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	other := &peer{id: id, address: address, conn: conn, silence: silence{since: time.Now()}}
	ctx, other.stop = context.WithCancel(ctx)
	other.ended = p.Guard.Go("follow a server", func() error { p.follow(ctx, other); return nil }, func(error) {})
	return other, nil
}

// Conn returns the connection to another server. It waits a short time for one that is just made, because that server may have
// started a moment ago.
func (p *Peers) Conn(ctx context.Context, server string) (grpc.ClientConnInterface, error) {
	if other := p.other(server); other != nil {
		awaitReady(ctx, other.conn, connTimeout)
		return other.conn, nil
	}
	s := p.Directory.Servers()[server]
	switch {
	case s == nil:
		return nil, api.Unavailable("the agent is connected to a server that has just ended or begun: try again in some seconds")
	case s.GetAddress() == "":
		return nil, api.Unavailable("the agent is connected to the server on %s, which has no address for the other servers: start it with --advertise", s.GetHost())
	}
	return nil, api.Unavailable("the agent is connected to the server at %s (%s), to which this server has no connection yet: try again in some seconds", s.GetAddress(), s.GetHost())
}

// other returns another server, or nil.
func (p *Peers) other(server string) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.others[server]
}

// Revision returns the revision that another server has reached as far as this one has heard; 0 if it has heard nothing.
func (p *Peers) Revision(server string) int64 {
	if other := p.other(server); other != nil {
		return other.revision.Load()
	}
	return 0
}

// HearsAll reports whether this server has the complete news of all others.
func (p *Peers) HearsAll() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range p.Directory.Servers() {
		if id == p.Directory.Self() || s.GetAddress() == "" { // nobody hears of that one
			continue
		}
		if other := p.others[id]; other == nil || !other.synced.Load() {
			return false
		}
	}
	return true
}

// hear reads one stream of news until it ends.
func (p *Peers) hear(ctx context.Context, other *peer, connected *bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !*connected {
		awaitReady(ctx, other.conn, newsMissing)
	}
	stream, err := carav1.NewPeerServiceClient(other.conn).FollowPeer(ctx, &carav1.FollowPeerRequest{Server: p.Directory.Self()})
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		news, err := stream.Recv()
		if err != nil {
			return err
		}
		if first && news.GetServer() != other.id {
			return anotherError{id: news.GetServer(), self: news.GetServer() == p.Directory.Self()}
		}
		*connected = true
		if first && other.silence.end() {
			p.DB.Logger.Info("another server sends news again", "server", other.id, "address", other.address)
		}
		other.revision.Store(news.GetRevision())
		p.Live.Hear(other.id, news, p.DB.Now())
		if news.GetSynced() {
			other.synced.Store(true)
		}
	}
}
