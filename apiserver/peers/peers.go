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
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
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
	pingAfter    = 10 * time.Second
	pingTimeout  = 5 * time.Second
	probeTimeout = 2 * time.Second
	goneTimeout  = 5 * time.Second
	maxNewsBytes = 16 << 20
	window       = 256 << 10 // unread bytes of one stream
	connWindow   = 4 << 20   // unread bytes of all streams of one server
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

	mu     sync.Mutex
	others map[string]*peer // by ID
}

// peer is another server, while the directory has it.
type peer struct {
	id, address string
	conn        *grpc.ClientConn
	stop        context.CancelFunc
	ended       <-chan struct{}
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
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxNewsBytes)),
		grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	other := &peer{id: id, address: address, conn: conn}
	ctx, other.stop = context.WithCancel(ctx)
	other.ended = p.Guard.Go("follow a server", func() error { p.follow(ctx, other); return nil }, func(error) {})
	return other, nil
}

// Conn returns the connection to another server.
func (p *Peers) Conn(server string) (grpc.ClientConnInterface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.others[server]; other != nil {
		return other.conn, nil
	}
	if s := p.Directory.Servers()[server]; s != nil && s.GetAddress() == "" {
		return nil, api.Unavailable("the agent is connected to server %s on %s, which has no address for the other servers: start it with --advertise", server, s.GetHost())
	}
	return nil, api.Unavailable("the agent is connected to server %s, which is not known here yet: try again in some seconds", server)
}

// Revision returns the revision that another server has reached as far as this one has heard; 0 if it has heard nothing.
func (p *Peers) Revision(server string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.others[server]; other != nil {
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

// errAnother means that a server at an address is not the one that was expected.
var errAnother = errors.New("another start of the server answers")

// follow hears the news of another server until ctx ends.
func (p *Peers) follow(ctx context.Context, other *peer) {
	for connected := false; ctx.Err() == nil; {
		err := p.hear(ctx, other, &connected)
		other.synced.Store(false)
		if ctx.Err() != nil {
			return
		}
		p.DB.Logger.Debug("the news of another server ended", "server", other.id, "error", err)
		if errors.Is(err, errAnother) || connected && refused(ctx, other.address) {
			p.DB.Logger.Warn("another server has ended", "server", other.id, "address", other.address)
			p.gone(ctx, other.id)
		}
		select {
		case <-time.After(followAgain):
		case <-ctx.Done():
		}
	}
}

func (p *Peers) gone(ctx context.Context, server string) {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	p.Directory.Gone(ctx, server)
}

// refused reports whether nothing listens at an address.
func refused(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close() // only whether it opens matters
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// hear reads one stream of news until it ends.
func (p *Peers) hear(ctx context.Context, other *peer, connected *bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := carav1.NewPeerServiceClient(other.conn).FollowPeer(ctx, &carav1.FollowPeerRequest{Server: p.Directory.Self()}, grpc.WaitForReady(!*connected))
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		news, err := stream.Recv()
		if err != nil {
			return err
		}
		if first && news.GetServer() != other.id {
			return fmt.Errorf("%w: it is %s", errAnother, news.GetServer())
		}
		*connected = true
		other.revision.Store(news.GetRevision())
		p.Live.Hear(other.id, news, p.DB.Now())
		if news.GetSynced() {
			other.synced.Store(true)
		}
	}
}
