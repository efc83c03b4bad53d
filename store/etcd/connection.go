package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/caravanserai/cara/store"
)

// The transport notices a silent member after about the sum of these.
const (
	pingEvery   = 10 * time.Second // etcd refuses clients that ping more often than every 5 s
	pingTimeout = 5 * time.Second
)

// How often the transport tries a member that cannot be reached. gRPC's own pause between two tries grows to two minutes, so a server
// would find etcd minutes after all members were down.
const (
	connectFirst = 100 * time.Millisecond
	connectAgain = time.Second
)

// connection is the client of a store, with the store's life and what keeps etcd from answering.
type connection struct {
	cfg    Config
	keys   keys
	client *clientv3.Client
	health *health

	closed  context.Context //nolint:containedctx // the life of the store: all background work and watches end with it
	close   context.CancelFunc
	running sync.WaitGroup
}

// connect makes a client. It logs in, if etcd requires that.
func connect(ctx context.Context, cfg Config) (*connection, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password, DialTimeout: cfg.Timeout,
		DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingTimeout, PermitWithoutStream: true, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(leaderForCall), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectFirst, Multiplier: backoff.DefaultConfig.Multiplier, Jitter: backoff.DefaultConfig.Jitter, MaxDelay: connectAgain},
			MinConnectTimeout: pingTimeout,
		})},
	})
	if err != nil {
		return nil, explain(ctx, err)
	}
	c := &connection{cfg: cfg, keys: keys{cfg.Prefix}, client: client, health: newHealth(cfg.Logger)}
	c.closed, c.close = context.WithCancel(context.WithoutCancel(ctx))
	return c, nil
}

// disconnect ends all background work and watches, and closes the client.
func (c *connection) disconnect() error {
	c.close()
	c.running.Wait()
	if err := c.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}

// Done returns a channel that is closed when the store is closed. A failure of etcd is never permanent.
func (c *connection) Done() <-chan struct{} { return c.closed.Done() }

// Err returns what keeps the store from working, or nil.
func (c *connection) Err() error {
	if c.closed.Err() != nil {
		return store.ErrClosed
	}
	return c.health.err()
}

// begin returns the context of one request. It fails if the caller's context or the store has ended.
func (c *connection) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if c.closed.Err() != nil {
		return nil, nil, store.ErrClosed
	}
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	return bounded, cancel, nil
}

// get reads a key, or what the options say.
func (c *connection) get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	bounded, cancel, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	answer, err := c.client.Get(bounded, key, options...)
	return answer, c.failed(ctx, err)
}

// below reads the keys that begin with a prefix, at most limit of them; 0 is all.
func (c *connection) below(ctx context.Context, prefix string, limit int64) (*clientv3.GetResponse, error) {
	return c.get(ctx, prefix, clientv3.WithRange(end(prefix)), clientv3.WithLimit(limit))
}

// readKey returns a key, or nil.
func (c *connection) readKey(ctx context.Context, key string) (*mvccpb.KeyValue, error) {
	answer, err := c.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return firstKV(answer.Kvs), nil
}

// writeIf does operations in one transaction if a condition holds.
func (c *connection) writeIf(ctx context.Context, condition clientv3.Cmp, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	bounded, cancel, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	answer, err := c.client.Txn(bounded).If(condition).Then(ops...).Commit()
	return answer, c.failedWrite(ctx, err)
}

// missing is the condition that a key does not exist.
func missing(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

// pause waits, unless the caller or the store ends.
func (c *connection) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed.Done():
		return store.ErrClosed
	}
}

// failed explains an error of a request. ctx is the caller's.
func (c *connection) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if c.closed.Err() != nil {
		return store.ErrClosed
	}
	return explain(ctx, err)
}

// failedWrite is failed for a write, whose error may also tell that etcd is full.
func (c *connection) failedWrite(ctx context.Context, err error) error {
	err = c.failed(ctx, err)
	c.health.failedWrite(err)
	return err
}

const (
	leaderAgain = 50 * time.Millisecond
	leaderWait  = 3 * time.Second // above the time of an election
)

// leaderForCall lets requests go past a member that the others do not reach. Such a member keeps a request for 7 seconds, unless the
// request asks for a leader: then the member says at once that it knows none, and has not begun it. The next try goes to another member.
// Reads are repeated by etcd's client itself.
func leaderForCall(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !strings.HasPrefix(method, "/etcdserverpb.KV/") && !strings.HasPrefix(method, "/etcdserverpb.Lease/") {
		return call(ctx, method, request, answer, conn, opts...) // for example the state of one member
	}
	ctx = clientv3.WithRequireLeader(ctx)
	for until := time.Now().Add(leaderWait); ; {
		err := call(ctx, method, request, answer, conn, opts...)
		if !leaderless(err) || method == "/etcdserverpb.KV/Range" || time.Now().After(until) || !leaderPause(ctx) {
			return withCause(err)
		}
	}
}

// leaderless reports whether a member has refused a request because it knows no leader.
func leaderless(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrNoLeader) }

// leaderPause returns false if ctx ends.
func leaderPause(ctx context.Context) bool {
	select {
	case <-time.After(leaderAgain):
		return true
	case <-ctx.Done():
		return false
	}
}
