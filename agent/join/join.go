package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// serverName is in every certificate of a cara-server, whatever its address. The cluster's own CA guarantees that it is a
// server of this cluster, since it signs no other certificate with this name.
const serverName = "cara-server"

const (
	joinTimeout  = 15 * time.Second
	joinRetryMin = 500 * time.Millisecond
	joinRetryMax = 2 * time.Second
)

// ErrPin means that the server is not from the cluster of the join token.
var ErrPin = errors.New("the server is not of the cluster that the join token is from")

// ErrNoToken means that the node must join and was given no token.
var ErrNoToken = errors.New("give it a join token")

// Join returns the node's credentials: those in the data directory if they are still valid, otherwise new ones for the
// token. If the server is unreachable, Join retries until ctx ends. It returns any other error.
func Join(ctx context.Context, cfg Config) (*Credentials, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	known, err := newServers(cfg.Server, cfg.DataDir)
	if err != nil {
		return nil, err
	}
	c := &Credentials{cfg: cfg, servers: known}
	id, err := load(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if id != nil && id.node != cfg.NodeName {
		return nil, fmt.Errorf("join: data directory %s is that of node %s: use another one for node %s",
			cfg.DataDir, id.node, cfg.NodeName)
	}
	if id != nil && c.holds(id) {
		c.current.Store(id)
		return c, nil
	}
	if cfg.Token == "" {
		return nil, fmt.Errorf("join: node %s has no valid certificate in %s: %w", cfg.NodeName, cfg.DataDir, ErrNoToken)
	}
	if err := c.Rejoin(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// holds reports whether id is still valid: it has not expired, and it is from the cluster of the token, if there is one. A
// server that was set up again has another CA, and then the token takes precedence.
func (c *Credentials) holds(id *identity) bool {
	if !c.cfg.Now().Before(id.cert.Leaf.NotAfter) {
		return false
	}
	token, err := api.ParseJoinToken(c.cfg.Token)
	return err != nil || token.CAHash == id.caHash
}

// Rejoin exchanges the join token for a new certificate, even if there is one, for an agent whose certificate the server no
// longer accepts.
func (c *Credentials) Rejoin(ctx context.Context) error {
	token, err := api.ParseJoinToken(c.cfg.Token)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	delay := joinRetryMin
	for {
		id, err := c.join(ctx, token)
		if err == nil {
			c.use(id)
			c.cfg.Logger.Info("joined cluster", "node", id.node, "cluster", id.clusterID, "until", id.cert.Leaf.NotAfter)
			return nil
		}
		if ctx.Err() == nil {
			if !unreachable(err) {
				return fmt.Errorf("join node %s at %s: %w", c.cfg.NodeName, c.cfg.Server, err)
			}
			c.servers.next()
			c.cfg.Logger.Warn("server not reached, trying again", "server", c.cfg.Server, "in", delay, "error", err)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return fmt.Errorf("join node %s at %s: %w (last: %w)", c.cfg.NodeName, c.cfg.Server, ctx.Err(), err)
		}
		delay = min(2*delay, joinRetryMax)
	}
}

// unreachable reports whether a call may succeed later or at another server. A server behind a firewall that drops packets does not
// refuse the connection, so the call ends with its time-out.
func unreachable(err error) bool {
	code := api.Code(err)
	return (code == codes.Unavailable || code == codes.DeadlineExceeded) && !errors.Is(err, ErrPin)
}

func (c *Credentials) join(ctx context.Context, token api.JoinToken) (*identity, error) {
	key, request, err := newKey(c.cfg.NodeName)
	if err != nil {
		return nil, err
	}
	pin := &pinned{hash: token.CAHash, now: c.cfg.Now}
	conn, err := grpc.NewClient("passthrough:///"+c.servers.first(), grpc.WithTransportCredentials(credentials.NewTLS(pin.config())))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	answer, err := carav1.NewNodeServiceClient(conn).Join(ctx, &carav1.JoinRequest{
		TokenId: token.ID, Secret: token.Secret, NodeName: c.cfg.NodeName, Csr: request, Labels: c.cfg.Labels,
	})
	if failed := pin.failed.Load(); err != nil && failed != nil {
		return nil, errors.Join(*failed, err)
	}
	if err != nil {
		return nil, err
	}
	return c.keep(key, answer, token.CAHash)
}

// keep validates the server's response and stores it.
func (c *Credentials) keep(key []byte, answer *carav1.JoinResponse, caHash string) (*identity, error) {
	s := stored{
		Node: c.cfg.NodeName, ClusterID: answer.GetClusterId(), Key: string(key),
		Certificate: string(answer.GetCertificate()), CA: string(answer.GetCa()),
	}
	id, err := s.parse()
	if err != nil {
		return nil, fmt.Errorf("the server's answer makes no sense: %w", err)
	}
	if id.caHash != caHash {
		return nil, fmt.Errorf("%w: its answer has another authority", ErrPin)
	}
	if err := s.save(c.cfg.DataDir); err != nil {
		return nil, fmt.Errorf("keep the certificate: %w", err)
	}
	return id, nil
}

// pinned trusts only the CA whose hash is in the join token, if the server presents it.
type pinned struct {
	hash   string
	now    func() time.Time
	failed atomic.Pointer[error] // why this side aborted the handshake
}

func (p *pinned) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: serverName,
		Time:       p.now,
		// The machine's own roots do not apply to this server. verify replaces the skipped checks for one CA.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			err := p.verify(state.PeerCertificates)
			if err != nil {
				p.failed.Store(&err)
			}
			return err
		},
	}
}

func (p *pinned) verify(chain []*x509.Certificate) error {
	for _, ca := range chain[1:] {
		if hashOf(ca) != p.hash {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err := chain[0].Verify(x509.VerifyOptions{
			Roots: roots, DNSName: serverName, CurrentTime: p.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrPin, err)
		}
		return nil
	}
	return fmt.Errorf("%w: no certificate that it presents has the token's hash %s; is the address right, and the token of this server?",
		ErrPin, p.hash)
}
