package pebble

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// Open opens the store in cfg.Dir, or creates it, and starts its committer. A store is opened and closed instead of run,
// since it must outlive every loop. Open reads every object once to build the index. On a full disk it waits for space.
func Open(cfg Config) (*Store, error) { return OpenContext(context.Background(), cfg) } //nolint:forbidigo // for callers that can wait

// OpenContext is like Open, but returns when ctx ends, even while it waits for space on a full disk.
func OpenContext(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	h := newHealth(cfg)
	done := make(chan opened, 1)
	go func() {
		s, err := open(cfg, h)
		done <- opened{s, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			h.end()
			return nil, fmt.Errorf("open store %s: %w", cfg.Dir, r.err)
		}
		cfg.Logger.Info("store is open", "dir", cfg.Dir, "rev", r.store.writer.revision, "objects", len(r.store.writer.index))
		return r.store, nil
	case err := <-h.first: // Pebble would retry forever
		return nil, giveUp(h, done, fmt.Errorf("open store %s: %w", cfg.Dir, explain(err)))
	case <-ctx.Done():
		return nil, giveUp(h, done, fmt.Errorf("open store %s: %w", cfg.Dir, ctx.Err()))
	}
}

// giveUp abandons an Open that may never return. The process usually ends next. If it does not, the store is closed once it
// opens.
func giveUp(h *health, done <-chan opened, err error) error {
	h.end()
	go func() {
		if r := <-done; r.store != nil {
			_ = r.store.Close()
		}
	}()
	return err
}

type opened struct {
	store *Store
	err   error
}

func open(cfg Config, h *health) (*Store, error) {
	lock, err := lockDir(cfg)
	if err != nil {
		return nil, err
	}
	if err := inspect(cfg, lock); err != nil {
		return nil, errors.Join(explain(err), lock.Close())
	}
	if err := h.writable(); err != nil {
		return nil, errors.Join(explain(err), lock.Close())
	}
	db, err := openDB(cfg.Dir, cfg.options(lock, h))
	if err != nil {
		return nil, errors.Join(explain(err), lock.Close())
	}
	state, err := load(db)
	if err != nil {
		return nil, errors.Join(explain(err), db.Close(), lock.Close())
	}
	found, err := cfg.FS.Stat(cfg.FS.PathJoin(cfg.Dir, lockName))
	if err != nil {
		return nil, errors.Join(explain(err), db.Close(), lock.Close())
	}
	m, err := openMark(h.disk, cfg.Dir, state.revision)
	if err != nil {
		return nil, errors.Join(explain(err), db.Close(), lock.Close())
	}
	return start(cfg, lock, db, m, state, h, found), nil
}

// openDB turns a panic of Pebble into an error.
func openDB(dir string, o *pebbledb.Options) (db *pebbledb.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("pebble gave up: %v", r)
		}
	}()
	return pebbledb.Open(dir, o)
}

func lockDir(cfg Config) (*pebbledb.Lock, error) {
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, explain(err)
	}
	lock, err := pebbledb.LockDirectory(cfg.Dir, cfg.FS)
	switch {
	case err == nil:
		return lock, nil
	case errors.Is(err, syscall.EAGAIN), isHeld(err):
		return nil, fmt.Errorf("lock the directory: %w: another cara-server is using it; stop that one or choose another directory", err)
	}
	return nil, fmt.Errorf("lock the directory: %w", explain(err))
}

// isHeld reports whether Pebble's error means that this process already holds the lock.
func isHeld(err error) bool { return strings.Contains(err.Error(), "lock held") }

// state is the initial state of the committer.
type state struct {
	index               index
	revision, compacted int64
}

// readState checks the format and the change log of a database, and returns its state without the objects.
func readState(db *pebbledb.DB) (st state, err error) {
	if err := checkFormat(db); err != nil {
		return st, err
	}
	if st.revision, err = readCounter(db, metaRevision); err != nil {
		return st, err
	}
	if st.compacted, err = readCounter(db, metaCompacted); err != nil {
		return st, err
	}
	return st, checkLog(db, st)
}

func load(db *pebbledb.DB) (state, error) {
	st, err := readState(db)
	if err != nil {
		return state{}, err
	}
	st.index = index{}
	return st, scan(db, []byte{objectSpace}, func(k, v []byte) error {
		at, _, err := decodeStamp(string(k[1:]), v)
		if err == nil && at.modified > st.revision {
			err = fmt.Errorf("object %s is at revision %d, after the newest, %d: restore the data directory from a backup", k[1:], at.modified, st.revision)
		}
		st.index[string(k[1:])] = at
		return err
	})
}

// checkFormat writes our format to an empty database. It returns an error for a database of a newer version or another
// program.
func checkFormat(db *pebbledb.DB) error {
	b, closer, err := db.Get(metaKey(metaFormat))
	if errors.Is(err, pebbledb.ErrNotFound) {
		return stampNew(db)
	}
	if err != nil {
		return fmt.Errorf("read the format: %w", err)
	}
	found, err := decodeCounter(metaFormat, b)
	if err := errors.Join(err, closer.Close()); err != nil {
		return err
	}
	if found != formatVersion {
		return fmt.Errorf("the data has format %d and this program knows only format %d: it was written by a newer cara-server; run that version or restore an older backup", found, formatVersion)
	}
	return nil
}

func stampNew(db *pebbledb.DB) error {
	if err := scan(db, nil, func(k, _ []byte) error { return foreign(k) }); err != nil {
		return err
	}
	return commitFormat(db.NewBatch(), 0)
}

// commitFormat adds the format, and the counters of a store without a change log, and commits the batch durably.
func commitFormat(b *pebbledb.Batch, revision int64) error {
	for name, n := range map[string]int64{metaFormat: formatVersion, metaRevision: revision, metaCompacted: revision} {
		if err := b.Set(metaKey(name), encodeCounter(n), nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(pebbledb.Sync), b.Close())
}

func readCounter(db *pebbledb.DB, name string) (int64, error) {
	b, closer, err := db.Get(metaKey(name))
	if err != nil {
		return 0, fmt.Errorf("read counter m/%s: %w", name, err)
	}
	n, err := decodeCounter(name, b)
	return n, errors.Join(err, closer.Close())
}

// checkLog checks that the change log ends at the store's revision, so that no watch silently misses a change.
func checkLog(db *pebbledb.DB, st state) error {
	it, err := db.NewIter(&pebbledb.IterOptions{LowerBound: []byte{logSpace}, UpperBound: after([]byte{logSpace})})
	if err != nil {
		return err
	}
	last := st.compacted
	if it.Last() {
		last, _, err = decodeLogKey(it.Key())
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return fmt.Errorf("read the end of the change log: %w", err)
	}
	if last != st.revision {
		return fmt.Errorf("the change log ends at revision %d and the store is at %d: restore the data directory from a backup", last, st.revision)
	}
	return nil
}

// scan calls visit for each key under prefix until it returns an error. The arguments of visit are valid only during the
// call.
func scan(db *pebbledb.DB, prefix []byte, visit func(k, v []byte) error) error {
	o := &pebbledb.IterOptions{LowerBound: prefix}
	if len(prefix) > 0 {
		o.UpperBound = after(prefix)
	}
	it, err := db.NewIter(o)
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = visit(it.Key(), v)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}
