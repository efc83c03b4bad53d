package pebble

import (
	"errors"
	"fmt"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

// Import writes a whole store into cfg.Dir, which must be empty or missing: the objects of a listing with their revisions,
// and an empty change log. The format is written last, so a directory whose import was interrupted does not open.
func Import(cfg Config, page store.Page) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if err := importInto(cfg, page); err != nil {
		return fmt.Errorf("import into %s: %w", cfg.Dir, explain(err))
	}
	return nil
}

func importInto(cfg Config, page store.Page) error {
	if names, err := cfg.FS.List(cfg.Dir); err == nil && len(names) > 0 {
		return fmt.Errorf("the directory is not empty (it has %s): choose another one", names[0])
	}
	lock, err := lockDir(cfg)
	if err != nil {
		return err
	}
	h := newHealth(cfg)
	defer h.end()
	db, err := openDB(cfg.Dir, cfg.options(lock, h))
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	if err = importObjects(db, page); err == nil {
		err = writeMark(h.disk, cfg.Dir, page.Revision)
	}
	return errors.Join(err, db.Close(), lock.Close())
}

// importObjects writes the objects in batches of about groupBytes, and then the counters and the format.
func importObjects(db *pebbledb.DB, page store.Page) error {
	b := db.NewBatch()
	for _, kv := range page.KVs {
		e := effect{store.Op{Key: kv.Key, Value: kv.Value}, kv.Created}
		if err := writeObject(b, kv.Modified, e); err != nil {
			return errors.Join(err, b.Close())
		}
		if b.Len() < groupBytes {
			continue
		}
		if err := errors.Join(b.Commit(pebbledb.NoSync), b.Close()); err != nil {
			return err
		}
		b = db.NewBatch()
	}
	return commitFormat(b, page.Revision)
}
