package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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

// Store is an opened store. It implements store.Store.
type Store struct {
	cfg    Config
	keys   keys
	client *clientv3.Client
	health *health
	first  int64                   // no object is older than this revision
	held   atomic.Pointer[holding] // nil while another server may write, or if no lock is used
	seen   atomic.Int64            // the newest revision of an object that was read or written

	closed  context.Context //nolint:containedctx // the life of the store: all background work and watches end with it
	close   context.CancelFunc
	running sync.WaitGroup

	endOnce sync.Once
	done    chan struct{} // closed when the store has failed permanently
	reason  error         // read it after done is closed
}

// Open connects to etcd and checks that the prefix belongs to this version of Cara, or is empty. It fails if etcd does not
// answer in time.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password, DialTimeout: cfg.Timeout,
		DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingTimeout, PermitWithoutStream: true, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("open the store in etcd: %w", explain(ctx, err)) // it logs in
	}
	s := &Store{cfg: cfg, keys: keys{cfg.Prefix}, client: client, health: newHealth(cfg.Logger), done: make(chan struct{})}
	s.closed, s.close = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.claim(ctx); err != nil {
		s.close()
		return nil, errors.Join(fmt.Errorf("open the store in etcd: %w", err), s.disconnect())
	}
	s.running.Go(s.watchHealth)
	return s, nil
}

// claim writes the format below an empty prefix, and checks it otherwise.
func (s *Store) claim(ctx context.Context) error {
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	format := s.keys.format()
	all := []clientv3.OpOption{clientv3.WithRange(end(s.cfg.Prefix)), clientv3.WithLimit(1), clientv3.WithKeysOnly()}
	answer, err := s.client.Txn(bounded).If(clientv3.Compare(clientv3.CreateRevision(format), "=", 0)).
		Then(clientv3.OpGet(s.cfg.Prefix, all...)).Else(clientv3.OpGet(format), clientv3.OpGet(s.keys.partial())).Commit()
	if err != nil {
		return explain(ctx, err)
	}
	kvs := answer.Responses[0].GetResponseRange().Kvs
	switch {
	case answer.Succeeded && len(kvs) > 0:
		return fmt.Errorf("the prefix %s has keys that are not Cara's (first key %q): choose another --etcd-prefix", s.cfg.Prefix, kvs[0].Key)
	case answer.Succeeded:
		_, err := s.client.Txn(bounded).If(clientv3.Compare(clientv3.CreateRevision(format), "=", 0)).Then(clientv3.OpPut(format, formatVersion)).Commit()
		if err != nil {
			return explain(ctx, err)
		}
		return s.claim(ctx)
	case string(kvs[0].Value) != formatVersion:
		return fmt.Errorf("the data below %s has format %.20q, and this version reads %s: start a newer version of Cara", s.cfg.Prefix, kvs[0].Value, formatVersion)
	}
	if len(answer.Responses[1].GetResponseRange().Kvs) > 0 && !s.cfg.Importing {
		return fmt.Errorf("the data below %s is incomplete, because an import was interrupted: run cara-server migrate again", s.cfg.Prefix)
	}
	s.first = kvs[0].CreateRevision
	return nil
}

// Close releases the lock, so that another server takes over at once, and ends all watches.
func (s *Store) Close() error {
	err := s.unlock()
	s.close()
	s.running.Wait()
	s.end(store.ErrClosed)
	return errors.Join(err, s.disconnect())
}

func (s *Store) disconnect() error {
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}

// end makes a permanent failure known. The first one counts.
func (s *Store) end(reason error) {
	s.endOnce.Do(func() {
		s.reason = reason
		close(s.done)
	})
}

// Done returns a channel that is closed when the store has failed permanently or is closed.
func (s *Store) Done() <-chan struct{} { return s.done }

// Err returns what keeps the store from working, or nil.
func (s *Store) Err() error {
	select {
	case <-s.done:
		return s.reason
	default:
		return s.health.err()
	}
}

// begin returns the context of one request. It fails if the caller's context or the store has ended.
func (s *Store) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	select {
	case <-s.done:
		return nil, nil, s.reason
	case <-s.closed.Done():
		return nil, nil, store.ErrClosed
	default:
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	return bounded, cancel, nil
}

// saw records the revision of an object.
func (s *Store) saw(revision int64) {
	for {
		have := s.seen.Load()
		if revision <= have || s.seen.CompareAndSwap(have, revision) {
			return
		}
	}
}

// failed explains an error of a request. ctx is the caller's.
func (s *Store) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.closed.Err() != nil {
		return store.ErrClosed
	}
	return explain(ctx, err)
}

// failedWrite is failed for a write, whose error may also tell that etcd is full.
func (s *Store) failedWrite(ctx context.Context, err error) error {
	err = s.failed(ctx, err)
	s.health.failedWrite(err)
	return err
}
