package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/caravanserai/cara/agent/peer"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// A silently broken connection is detected within pingEvery + pingTimeout.
	pingEvery   = 10 * time.Second // the shortest that gRPC allows a client
	pingTimeout = 8 * time.Second

	// handshakeTimeout is long, because a server may have thousands of handshakes to do: all agents have lost it at the same moment. An
	// agent that gives up earlier starts from the beginning, and the server's work was for nothing.
	handshakeTimeout = 15 * time.Second

	renewTimeout = 30 * time.Second
	renewRetry   = time.Minute
	// renewCheck limits each wait, so that the loop notices a clock that was set or a machine that slept.
	renewCheck = time.Hour

	maxMessage = 16 << 20 // an assignment with its secrets and files
)

// Credentials are the identity of a node, used to connect to the server. Safe for concurrent use.
type Credentials struct {
	cfg     Config
	servers *servers
	current atomic.Pointer[identity]

	mu    sync.Mutex
	conns map[net.Conn]*identity // the live connections, with the identity they were opened with
}

// NodeName returns the node's name.
func (c *Credentials) NodeName() string { return c.cfg.NodeName }

// ClusterID returns the cluster's ID.
func (c *Credentials) ClusterID() string { return c.current.Load().clusterID }

// NotAfter returns when the current certificate expires.
func (c *Credentials) NotAfter() time.Time { return c.current.Load().cert.Leaf.NotAfter }

// Peers secures connections to and from other agents, always with the newest certificate.
func (c *Credentials) Peers() *peer.TLS {
	return &peer.TLS{
		Identity: func() (tls.Certificate, *x509.CertPool) {
			id := c.current.Load()
			return id.cert, id.roots
		},
		Now:     c.cfg.Now,
		Members: new(peer.Members),
	}
}

// LocalIP returns this machine's address on the route to the server, which most likely reaches other nodes too. It sends
// nothing. If the server is on this machine, it is the address on the route to other networks. It is invalid if there is
// neither.
func (c *Credentials) LocalIP(ctx context.Context) netip.Addr {
	toServer := sourceOf(ctx, c.servers.first())
	if toServer.IsValid() && !toServer.IsLoopback() {
		return toServer
	}
	for _, elsewhere := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // documentation ranges: on the default route
		if outward := sourceOf(ctx, elsewhere); outward.IsValid() {
			return outward
		}
	}
	return toServer
}

// sourceOf returns the source address for a destination. Connecting a UDP socket only looks up the route.
func sourceOf(ctx context.Context, to string) netip.Addr {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "udp", to)
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return local.Addr().Unmap()
}

// Dial returns a connection to the server. It connects on first use, reconnects automatically, and always presents the
// newest certificate. The caller closes it.
func (c *Credentials) Dial(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	target, addresses := c.servers.resolver()
	base := []grpc.DialOption{
		grpc.WithTransportCredentials(&transport{credentials.NewTLS(nil), c}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: time.Second},
			MinConnectTimeout: handshakeTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithResolvers(addresses),
	}
	return grpc.NewClient(target, append(base, options...)...)
}

// Learn stores the addresses of all servers, as a server has told them.
func (c *Credentials) Learn(servers []string) {
	if err := c.servers.learn(servers); err != nil {
		c.cfg.Logger.Warn("the addresses of the servers are known only until the agent ends", "error", err)
	}
}

// NextServer leaves the server that the agent is connected to, if it knows another one.
func (c *Credentials) NextServer() {
	if c.servers.next() {
		c.leave(func(*identity) bool { return true })
	}
}

// RenewLoop renews the certificate at half of its lifetime, through conn, until ctx ends. A failed renewal is retried during
// the other half.
func (c *Credentials) RenewLoop(ctx context.Context, conn grpc.ClientConnInterface) error {
	client := carav1.NewNodeServiceClient(conn)
	for {
		wait := c.current.Load().renewAt().Sub(c.cfg.Now())
		if wait <= 0 {
			// Wait even after a success: with a clock that is ahead, a new certificate may already look old.
			wait = renewRetry
			if err := c.renew(ctx, client); err != nil {
				c.cfg.Logger.Warn("certificate not renewed, trying again", "node", c.cfg.NodeName, "until", c.NotAfter(),
					"in", renewRetry, "error", err)
			}
		}
		select {
		case <-time.After(min(wait, renewCheck)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Credentials) renew(ctx context.Context, client carav1.NodeServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	key, request, err := newKey(c.cfg.NodeName)
	if err != nil {
		return err
	}
	answer, err := client.RenewCertificate(ctx, &carav1.RenewCertificateRequest{Csr: request})
	if err != nil {
		return err
	}
	id, err := c.keep(key, answer, c.current.Load().caHash)
	if err != nil {
		return err
	}
	c.use(id)
	c.cfg.Logger.Info("renewed certificate", "node", id.node, "until", id.cert.Leaf.NotAfter)
	return nil
}

// use makes id the current identity, and closes the connections that were opened with an older one. Otherwise they would
// fail later, when their certificate expires. They reconnect immediately.
func (c *Credentials) use(id *identity) {
	c.current.Store(id)
	c.leave(func(with *identity) bool { return with != id })
}

// leave closes the connections that were opened with certain identities.
func (c *Credentials) leave(which func(with *identity) bool) {
	c.mu.Lock()
	var old []net.Conn
	for conn, with := range c.conns {
		if which(with) {
			old = append(old, conn)
			delete(c.conns, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range old {
		_ = conn.Close() // errors do not matter: it is abandoned
	}
}

// transport opens each connection with the identity that is current at that time. What it embeds has Info, and the methods that no
// client calls.
type transport struct {
	credentials.TransportCredentials
	owner *Credentials
}

func (t *transport) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	id := t.owner.current.Load()
	conn, info, err := credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		ServerName:   serverName,
		RootCAs:      id.roots,
		Certificates: []tls.Certificate{id.cert},
		Time:         t.owner.cfg.Now,
	}).ClientHandshake(ctx, serverName, raw) // the inner credentials verify the name that they are called with
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s as node %s: %w", t.owner.cfg.Server, id.node, err)
	}
	followed, err := t.owner.follow(conn, id)
	if err != nil {
		return nil, nil, err
	}
	return followed, info, nil
}

// follow tracks conn until it is closed.
func (c *Credentials) follow(conn net.Conn, id *identity) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Load() != id {
		_ = conn.Close() // it is given up either way
		return nil, errors.New("the certificate was renewed meanwhile, connect again")
	}
	if c.conns == nil {
		c.conns = make(map[net.Conn]*identity)
	}
	f := &followed{Conn: conn, owner: c}
	c.conns[f] = id
	return f, nil
}

type followed struct {
	net.Conn
	owner *Credentials
}

func (f *followed) Close() error {
	f.owner.mu.Lock()
	delete(f.owner.conns, net.Conn(f))
	f.owner.mu.Unlock()
	return f.Conn.Close()
}

// Clone returns a transport with the same owner.
func (t *transport) Clone() credentials.TransportCredentials {
	return &transport{t.TransportCredentials, t.owner}
}
