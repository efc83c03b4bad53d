package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
)

// Advice for the operator, appended to an error.
const (
	adviceRestore = "the store's files are damaged: restore the data directory from a backup"
	adviceRights  = "the server may not write here: give its user the right to read and write the data directory, or mount it writable"
)

// explain adds to an error of the disk or of Pebble what an operator can do about it.
func explain(err error) error {
	switch {
	case err == nil, strings.Contains(err.Error(), "restore the data directory"):
		return err
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %s", err, adviceRights)
	case isFull(err):
		return fmt.Errorf("%w: the disk is full: free some space, then start the server again", err)
	case pebbledb.IsCorruptionError(err), errors.Is(err, record.ErrInvalidChunk), errors.Is(err, record.ErrZeroedChunk), errors.Is(err, record.ErrUnexpectedEOF),
		errors.Is(err, fs.ErrNotExist), strings.Contains(err.Error(), "invalid chunk"):
		return fmt.Errorf("%w: %s", err, adviceRestore)
	}
	return err
}

// inspect opens an existing database read-only and looks for damage. Pebble accepts a truncated MANIFEST as complete and
// immediately deletes the files that it does not mention. So the database is checked against Cara's own data before anything
// may be written.
func inspect(cfg Config, lock *pebbledb.Lock) error {
	desc, err := pebbledb.Peek(cfg.Dir, cfg.FS)
	if err != nil {
		return fmt.Errorf("look into the directory: %w", err)
	}
	if !desc.Exists {
		return behind(cfg.FS, cfg.Dir, 0)
	}
	quiet := cfg
	quiet.Logger = slog.New(slog.DiscardHandler)
	o := quiet.options(lock, newHealth(quiet))
	o.ReadOnly = true
	db, err := openDB(cfg.Dir, o)
	if err != nil {
		return err
	}
	revision, err := check(cfg, db)
	if err == nil {
		err = behind(cfg.FS, cfg.Dir, revision)
	}
	return errors.Join(err, db.Close())
}

// check reads the keys that every Cara database has, and returns its newest revision.
func check(cfg Config, db *pebbledb.DB) (int64, error) {
	_, closer, err := db.Get(metaKey(metaFormat))
	if errors.Is(err, pebbledb.ErrNotFound) {
		return 0, checkEmpty(cfg, db)
	}
	if err != nil {
		return 0, err
	}
	if err := closer.Close(); err != nil {
		return 0, err
	}
	st, err := readState(db)
	return st.revision, err
}

// checkEmpty checks a database without a format key. Either the server was killed just after it created the database, or the
// database belongs to another program, or it is damaged.
func checkEmpty(cfg Config, db *pebbledb.DB) error {
	names, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			return fmt.Errorf("the MANIFEST does not mention %s: %s", name, adviceRestore)
		}
	}
	return scan(db, nil, func(k, _ []byte) error { return foreign(k) })
}

// foreign returns the error for a key in a database without a format key.
func foreign(k []byte) error {
	if len(k) > 1 && (k[0] == metaSpace || k[0] == objectSpace || k[0] == logSpace) {
		return fmt.Errorf("the format is missing, and %q is there: %s", k, adviceRestore)
	}
	return fmt.Errorf("the directory holds a database that is not Cara's (first key %q): choose another directory", k)
}
