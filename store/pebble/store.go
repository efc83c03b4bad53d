package pebble

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/caravanserai/cara/store"
)

// Store implements store.Store on a local disk.
type Store struct {
	cfg      Config
	lock     *pebbledb.Lock
	db       *pebbledb.DB
	mark     *mark
	views    *views
	requests chan *request
	stop     chan struct{} // closed by Close
	stopped  chan struct{} // closed when the committer has returned; writer and failure may be read after that
	writer   *committer
	failure  error // why the committer returned
	health   *health
	lost     chan error // signals the committer that the directory is gone
	close    func() error
}

var _ store.Store = (*Store)(nil)

func start(cfg Config, lock *pebbledb.Lock, db *pebbledb.DB, m *mark, st state, h *health, dir vfs.FileInfo) *Store {
	vs := &views{log: cfg.Logger}
	s := &Store{
		cfg:      cfg,
		lock:     lock,
		db:       db,
		mark:     m,
		views:    vs,
		requests: make(chan *request, queueLen),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
		health:   h,
		lost:     make(chan error, 1),
		writer: &committer{
			db: db, views: vs, retain: cfg.RetainRevisions,
			index: st.index, revision: st.revision, compacted: st.compacted,
			tail: &tail{from: st.revision},
			mark: func(revision int64) { h.acknowledge(m, revision) },
		},
	}
	s.writer.present, s.writer.broken = func() error { return h.present(dir) }, s.lost
	s.close = sync.OnceValue(s.shutdown)
	s.writer.publish()
	go s.commitLoop()
	go s.look(s.writer.present)
	return s
}

// look detects that the directory is gone, even while nobody writes.
func (s *Store) look(present func() error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := present(); err != nil {
				s.lost <- err
				return
			}
		case <-s.stopped:
			return
		}
	}
}

func (s *Store) commitLoop() {
	defer close(s.stopped)
	s.failure = s.writer.run(s.requests, s.stop)
	if !errors.Is(s.failure, store.ErrClosed) {
		s.failure = fmt.Errorf("store %s takes no more writes: %w: look at the disk, then restart the server", s.cfg.Dir, s.failure)
		s.cfg.Logger.Error("store takes no more writes", "dir", s.cfg.Dir, "error", s.failure)
	}
}

// Err returns nil while the store is healthy. Otherwise it returns store.ErrClosed after Close, the failure that stopped the
// store permanently, or a trouble that may pass: a full or slow disk, corrupt data, or data that cannot be flushed or
// compacted.
func (s *Store) Err() error {
	select {
	case <-s.stopped:
		return s.failure
	default:
	}
	if err := s.health.err(); err != nil {
		return err
	}
	if since := s.writer.writing.Load(); since != 0 {
		if took := time.Since(time.Unix(0, since)); took > hangs {
			return fmt.Errorf("the disk of %s has not answered a write for %s", s.cfg.Dir, took.Round(time.Second))
		}
	}
	return nil
}

// Done is closed when the store has permanently stopped writing; Err returns the reason. The process should then exit so
// that its supervisor restarts it.
func (s *Store) Done() <-chan struct{} { return s.stopped }

// Close stops the committer, waits until readers release their views, and closes the database. Waiting transactions get
// store.ErrClosed and are not stored. Watches end. Further calls return the result of the first.
func (s *Store) Close() error { return s.close() }

func (s *Store) shutdown() error {
	close(s.stop)
	s.health.end()
	<-s.stopped
	s.views.close()
	if s.writer.wedged {
		return fmt.Errorf("close store %s: its files stay open until the process ends: %w", s.cfg.Dir, s.failure)
	}
	if err := errors.Join(s.db.Close(), s.mark.close(), s.lock.Close()); err != nil {
		return fmt.Errorf("close store %s: %w", s.cfg.Dir, err)
	}
	return nil
}

// Commit implements store.Store. Transactions that wait at the same time share one sync.
func (s *Store) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	if t.Lease != (store.Lease{}) || t.Agent != (store.AgentRecord{}) {
		return 0, fmt.Errorf("%w: a transaction with the lease %q and the agent %q on a store that has one server", store.ErrInvalid, t.Lease.Name, t.Agent.Node)
	}
	return s.submit(ctx, &request{txn: t, done: make(chan outcome, 1)})
}

// Compact implements store.Store. The store also trims the log itself beyond Config.RetainRevisions.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	if revision < 0 {
		return fmt.Errorf("%w: compact to negative revision %d", store.ErrInvalid, revision)
	}
	_, err := s.submit(ctx, &request{compact: revision, done: make(chan outcome, 1)})
	return err
}

func (s *Store) submit(ctx context.Context, r *request) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	full := s.health.blocked()
	select {
	case <-full: // checked first, since the queue may have room
		return 0, s.health.refusal()
	default:
	}
	select {
	case s.requests <- r:
	case <-full:
		return 0, s.health.refusal()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.stopped:
		return 0, s.failure
	}
	select {
	case o := <-r.done:
		return o.revision, o.err
	case <-full: // the transaction is stored once there is space
		return 0, s.health.refusal()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.stopped:
	}
	select { // the committer may have sent a result just before it returned
	case o := <-r.done:
		return o.revision, o.err
	default:
		return 0, s.failure
	}
}

// Checkpoint writes a backup of everything that is durable into dir, which must not exist yet and must be on the same file
// system. Files that no longer change are linked, not copied. A checkpoint is a data directory: to restore it, start the
// server on it.
func (s *Store) Checkpoint(_ context.Context, dir string) error {
	v, err := s.views.acquire()
	if err != nil {
		return fmt.Errorf("back up store %s: %w", s.cfg.Dir, err)
	}
	defer s.views.release(v)
	if err := s.db.Checkpoint(dir, pebbledb.WithFlushedWAL()); err != nil {
		return fmt.Errorf("back up store %s to %s: %w", s.cfg.Dir, dir, err)
	}
	// The backup gets its own mark, so that it replaces the mark of a directory that the backup is unpacked into.
	if err := writeMark(s.cfg.FS, dir, v.revision); err != nil {
		return fmt.Errorf("back up store %s to %s: %w", s.cfg.Dir, dir, err)
	}
	return nil
}
