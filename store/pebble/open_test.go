package pebble

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/caravanserai/cara/store"
)

func TestConfigValidate(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no directory":       {},
		"negative retention": {Dir: "d", RetainRevisions: -1},
		"negative cache":     {Dir: "d", CacheBytes: -1},
		"negative memtable":  {Dir: "d", MemTableBytes: -1},
		"huge memtable":      {Dir: "d", MemTableBytes: maxMemTable + 1},
	} {
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: valid", name)
		}
		if s, err := Open(cfg); err == nil {
			t.Errorf("%s: opened %v", name, s)
		}
	}
	if err := (Config{Dir: "d"}).Validate(); err != nil {
		t.Error(err)
	}
}

// put1 commits one key and returns the revision.
func put1(t *testing.T, s *Store, key string) int64 {
	t.Helper()
	revision, err := s.Commit(t.Context(), store.Txn{Do: []store.Op{{Key: key, Value: []byte(key)}}})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	put1(t, s, "a")
	put1(t, s, "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Config{Dir: dir})
	if got, err := s.Get(t.Context(), "a"); err != nil || got.Created != 1 || got.Modified != 2 {
		t.Errorf("get = %v, %v", got, err)
	}
	if got := put1(t, s, "b"); got != 3 {
		t.Errorf("the first revision after opening again is %d, want 3", got)
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	openTest(t, Config{Dir: dir})
	_, err := Open(Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "another cara-server") || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second open of one directory: %v", err)
	}
}

func TestForeignData(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(db *pebbledb.DB) error
		want string
	}{
		{
			"newer format",
			func(db *pebbledb.DB) error {
				return db.Set(metaKey(metaFormat), encodeCounter(formatVersion+1), pebbledb.Sync)
			},
			"written by a newer cara-server",
		},
		{
			"corrupt format",
			func(db *pebbledb.DB) error { return db.Set(metaKey(metaFormat), []byte("x"), pebbledb.Sync) },
			"counter m/format is corrupt",
		},
		{
			"another program's",
			func(db *pebbledb.DB) error {
				return errors.Join(db.DeleteRange([]byte{'a'}, []byte{'z'}, nil), db.Set([]byte("x"), nil, pebbledb.Sync))
			},
			"not Cara's",
		},
		{
			"format lost",
			func(db *pebbledb.DB) error { return db.Delete(metaKey(metaFormat), pebbledb.Sync) },
			"restore the data directory from a backup",
		},
		{
			"no revision",
			func(db *pebbledb.DB) error { return db.Delete(metaKey(metaRevision), pebbledb.Sync) },
			"read counter m/revision",
		},
		{
			"log cut",
			func(db *pebbledb.DB) error { return db.DeleteRange(logStart(2), logStart(3), pebbledb.Sync) },
			"change log ends at revision 1",
		},
		{
			"corrupt object",
			func(db *pebbledb.DB) error { return db.Set(objectKey("a"), []byte("x"), pebbledb.Sync) },
			"object a is corrupt",
		},
		{
			"object of the future",
			func(db *pebbledb.DB) error {
				return db.Set(objectKey("a"), append(encodeCounter(9), encodeCounter(9)...), pebbledb.Sync)
			},
			"object a is at revision 9, after the newest, 2",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := vfs.NewMem()
			s, err := Open(Config{Dir: "data", FS: disk})
			if err != nil {
				t.Fatal(err)
			}
			put1(t, s, "a")
			put1(t, s, "b")
			if err := errors.Join(test.do(s.db), s.Close()); err != nil {
				t.Fatal(err)
			}
			s, err = Open(Config{Dir: "data", FS: disk})
			if err == nil {
				t.Fatal(errors.Join(errors.New("it opens"), s.Close()))
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("open: %v; want it to say %q", err, test.want)
			}
		})
	}
}

func TestLogHole(t *testing.T) {
	s := openTest(t, Config{})
	put1(t, s, "a")
	put1(t, s, "b")
	put1(t, s, "c")
	if err := s.db.DeleteRange(logStart(2), logStart(3), pebbledb.Sync); err != nil {
		t.Fatal(err)
	}
	put1(t, s, "d") // shows what was done behind the committer's back
	for c, err := range s.Watch(t.Context(), 0) {
		if err == nil || !strings.Contains(err.Error(), "revision 2 is missing") {
			t.Fatalf("watch over a hole = %v, %v", c, err)
		}
	}
}

func TestRetention(t *testing.T) {
	s := openTest(t, Config{RetainRevisions: 50})
	for range 200 {
		put1(t, s, "a")
	}
	v, err := s.views.acquire()
	if err != nil {
		t.Fatal(err)
	}
	compacted := v.compacted
	s.views.release(v)
	if compacted < 200-55 || compacted > 200-50 {
		t.Errorf("the log of 200 revisions is compacted to %d, want the newest 50 to 55 kept", compacted)
	}
}

func TestCheckpoint(t *testing.T) {
	root := t.TempDir()
	s := openTest(t, Config{Dir: filepath.Join(root, "data")})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 200 {
			if _, err := s.Commit(t.Context(), pair(fmt.Sprint(i))); err != nil {
				t.Errorf("commit: %v", err)
			}
		}
	})
	at := put1(t, s, "before")
	backup := filepath.Join(root, "backup")
	if err := s.Checkpoint(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := s.Checkpoint(t.Context(), backup); err == nil {
		t.Error("a checkpoint overwrites another")
	}
	restored := openTest(t, Config{Dir: backup})
	if got, err := restored.Get(t.Context(), "before"); err != nil || got.Modified != at {
		t.Errorf("get from the backup = %v, %v; want revision %d", got, err, at)
	}
}

func TestClose(t *testing.T) {
	s, err := Open(Config{Dir: "data", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	put1(t, s, "a")
	if err := s.Err(); err != nil {
		t.Errorf("Err of an open store: %v", err)
	}
	var wg sync.WaitGroup
	watching := make(chan struct{})
	wg.Go(func() {
		var last error
		for c, err := range s.Watch(t.Context(), 0) {
			if last = err; c.Revision == 1 {
				close(watching)
			}
		}
		if !errors.Is(last, store.ErrClosed) {
			t.Errorf("watch ended with %v, want ErrClosed", last)
		}
	})
	for range 8 {
		wg.Go(func() {
			for {
				_, err := s.Commit(t.Context(), store.Txn{Do: []store.Op{{Key: "b"}}})
				if errors.Is(err, store.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("commit while closing: %v", err)
					return
				}
			}
		})
	}
	<-watching
	for range 3 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	for name, err := range map[string]error{
		"get":        func() error { _, err := s.Get(t.Context(), "a"); return err }(),
		"list":       func() error { _, err := s.List(t.Context(), "", store.ListOptions{}); return err }(),
		"compact":    s.Compact(t.Context(), 1),
		"checkpoint": s.Checkpoint(t.Context(), "backup"),
		"err":        s.Err(),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s of a closed store: %v, want ErrClosed", name, err)
		}
	}
}

// TestCallerLeaves cancels the wait for a slow sync: the caller gets its context's error immediately, and the transaction is
// still stored.
func TestCallerLeaves(t *testing.T) {
	gate := newGate()
	s := openTest(t, Config{Dir: "data", FS: gate.wrap(vfs.NewMem())})
	gate.shut()
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := s.Commit(ctx, store.Txn{Do: []store.Op{{Key: "a"}}})
		left <- err
	}()
	gate.waitForSync(t)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get before the sync: %v, want ErrNotFound", err)
	}
	cancel()
	select {
	case err := <-left:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("commit: %v, want context.Canceled", err)
		}
	case <-time.After(60 * time.Second):
		t.Error("commit does not return when its context ends")
	}
	gate.open()
	put1(t, s, "b")
	if got, err := s.Get(t.Context(), "a"); err != nil || got.Modified != 1 {
		t.Errorf("get = %v, %v; want revision 1", got, err)
	}
}
