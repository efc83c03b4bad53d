package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/caravanserai/cara/store"
)

// The transport notices a silent member after about the sum of these.
const (
	pingEvery   = 10 * time.Second // etcd refuses clients that ping more often than every 5 s
	pingTimeout = 5 * time.Second
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

	endOnce sync.Once
	done    chan struct{} // closed when the store has failed permanently
	reason  error         // read it after done is closed
}

// connect makes a client. It logs in, if etcd requires that.
func connect(ctx context.Context, cfg Config) (*connection, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password, DialTimeout: cfg.Timeout,
		DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingTimeout, PermitWithoutStream: true, Logger: zap.NewNop(),
		DialOptions: withLeader(),
	})
	if err != nil {
		return nil, explain(ctx, err)
	}
	c := &connection{cfg: cfg, keys: keys{cfg.Prefix}, client: client, health: newHealth(cfg.Logger), done: make(chan struct{})}
	c.closed, c.close = context.WithCancel(context.WithoutCancel(ctx))
	return c, nil
}

// disconnect ends all background work and watches, and closes the client.
func (c *connection) disconnect() error {
	c.close()
	c.running.Wait()
	c.end(store.ErrClosed)
	if err := c.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}

// end makes a permanent failure known. The first one counts.
func (c *connection) end(reason error) {
	c.endOnce.Do(func() {
		c.reason = reason
		close(c.done)
	})
}

// Done returns a channel that is closed when the store has failed permanently or is closed.
func (c *connection) Done() <-chan struct{} { return c.done }

// Err returns what keeps the store from working, or nil.
func (c *connection) Err() error {
	select {
	case <-c.done:
		return c.reason
	default:
		return c.health.err()
	}
}

// begin returns the context of one request. It fails if the caller's context or the store has ended.
func (c *connection) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	select {
	case <-c.done:
		return nil, nil, c.reason
	case <-c.closed.Done():
		return nil, nil, store.ErrClosed
	default:
	}
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	return bounded, cancel, nil
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
