package pebble

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/caravanserai/cara/store"
)

// onLog injects an error into the given operations on write-ahead logs.
func onLog(kinds ...errorfs.OpKind) *errorfs.Toggle {
	return &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		for _, kind := range kinds {
			if op.Kind == kind && strings.HasSuffix(op.Path, ".log") {
				return errorfs.ErrInjected
			}
		}
		return nil
	})}
}

// TestDiskFails checks that a failed write is never visible and is the last one: the disk starts to fail while eight writers
// run. Every acknowledged transaction exists, before and after a restart. Every other one is complete or absent.
func TestDiskFails(t *testing.T) {
	for name, kinds := range map[string][]errorfs.OpKind{
		"sync":  {errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileFlush},
		"write": {errorfs.OpFileWrite},
	} {
		t.Run(name, func(t *testing.T) { diskFails(t, onLog(kinds...)) })
	}
}

func diskFails(t *testing.T, fault *errorfs.Toggle) {
	disk := vfs.NewCrashableMem()
	s, err := Open(Config{Dir: "data", FS: errorfs.Wrap(disk, fault)})
	if err != nil {
		t.Fatal(err)
	}
	acked := commitUntilError(t, s, fault)

	failure := s.Err()
	if failure == nil {
		t.Fatal("Err is nil after a failed write")
	}
	fault.Off() // the disk is well again, but the store cannot know what it holds
	if _, err := s.Commit(t.Context(), pair("late")); !errors.Is(err, failure) || !strings.Contains(err.Error(), "restart the server") {
		t.Errorf("commit after the failure: %v, want %v", err, failure)
	}
	expectAll(t, s, acked, int64(len(acked)))
	if err := s.Close(); err == nil {
		t.Error("close after the failure says nothing of it")
	}

	s = openTest(t, Config{Dir: "data", FS: disk.CrashClone(vfs.CrashCloneCfg{})})
	page, err := s.List(t.Context(), "", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if page.Revision < int64(len(acked)) {
		t.Fatalf("after the restart the store is at revision %d, and %d was acknowledged", page.Revision, len(acked))
	}
	expectAll(t, s, acked, page.Revision)
}

// pair is a transaction that is easily seen to be whole.
func pair(name string) store.Txn {
	return store.Txn{Do: []store.Op{{Key: "one/" + name, Value: []byte(name)}, {Key: "two/" + name, Value: []byte(name)}}}
}

// commitUntilError returns which revisions were acknowledged, and for which names.
func commitUntilError(t *testing.T, s *Store, fault *errorfs.Toggle) map[int64]string {
	t.Helper()
	var mu sync.Mutex
	acked := map[int64]string{}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d", w, i)
				revision, err := s.Commit(t.Context(), pair(name))
				if err != nil {
					if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrClosed) {
						t.Errorf("a disk error is told as %v", err)
					}
					return
				}
				mu.Lock()
				if acked[revision] = name; len(acked) == 200 {
					fault.On()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return acked
}

// expectAll checks that s is at revision, with the acknowledged pairs at their revisions and no half of a pair.
func expectAll(t *testing.T, s *Store, acked map[int64]string, revision int64) {
	t.Helper()
	for rev, name := range acked {
		for _, op := range pair(name).Do {
			if got, err := s.Get(t.Context(), op.Key); err != nil || got.Modified != rev {
				t.Errorf("get %s = %v, %v; acknowledged at revision %d", op.Key, got, err, rev)
			}
		}
	}
	one, err := s.List(t.Context(), "one/", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.List(t.Context(), "two/", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(len(one.KVs)); n != revision || int64(len(two.KVs)) != n || one.Revision != revision {
		t.Errorf("at revision %d, want %d: %d and %d halves of pairs", one.Revision, revision, n, len(two.KVs))
	}
	seen := int64(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for c, err := range s.Watch(ctx, 0) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			break
		}
		if seen++; c.Revision != seen || len(c.Events) != 2 {
			t.Fatalf("watch has revision %d with %d events, want %d with 2", c.Revision, len(c.Events), seen)
		}
		if c.Revision == revision {
			cancel() // anything later would be reported before the watch sees this
		}
	}
}

// TestReadFails checks that a disk that cannot be read is never an empty one.
func TestReadFails(t *testing.T) {
	fault := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".sst") && op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return errorfs.ErrInjected
		}
		return nil
	})}
	s := openTest(t, Config{Dir: "data", FS: errorfs.Wrap(vfs.NewMem(), fault), CacheBytes: 1})
	for i := range 50 {
		if _, err := s.Commit(t.Context(), pair(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	fault.On()
	if got, err := s.Get(t.Context(), "one/7"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("get = %v, %v; want the disk's error", got, err)
	}
	if got, err := s.List(t.Context(), "one/", store.ListOptions{}); err == nil {
		t.Errorf("list = %d objects, want the disk's error", len(got.KVs))
	}
	for c, err := range s.Watch(t.Context(), 0) {
		if err == nil || errors.Is(err, store.ErrCompacted) {
			t.Fatalf("watch = %v, %v; want the disk's error", c, err)
		}
	}
	fault.Off()
	if _, err := s.Get(t.Context(), "one/7"); err != nil {
		t.Errorf("get from the disk that is well again: %v", err)
	}
}

// TestOpenFails lets each file operation of Open fail in turn: it must return an error or a store that works, and leave
// a directory that opens afterwards.
func TestOpenFails(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s, err := Open(Config{Dir: "data", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := s.Commit(t.Context(), pair(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for n := int64(1); ; n++ {
		copied := disk.CrashClone(vfs.CrashCloneCfg{})
		var ops atomic.Int64
		fault := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !fatal(op) && ops.Add(1) == n {
				return errorfs.ErrInjected
			}
			return nil
		})}
		fault.On()
		s, err := Open(Config{Dir: "data", FS: errorfs.Wrap(copied, fault)})
		fault.Off()
		if err == nil {
			expectRevision(t, s, 20)
			if err := s.Close(); err != nil {
				t.Errorf("close after fault %d: %v", n, err)
			}
			if ops.Load() < n {
				return // there was nothing left to fail
			}
		}
		s, err = Open(Config{Dir: "data", FS: copied.CrashClone(vfs.CrashCloneCfg{})})
		if err != nil {
			t.Fatalf("open after fault %d: %v", n, err)
		}
		expectRevision(t, s, 20)
		if err := s.Close(); err != nil {
			t.Errorf("close after fault %d: %v", n, err)
		}
	}
}

// fatal reports the operations after whose failure Pebble ends the process: those that install a new MANIFEST.
func fatal(op errorfs.Op) bool {
	return strings.Contains(strings.ToLower(op.Path), "manifest") || op.Kind == errorfs.OpFileSync && op.Path == "data"
}

func expectRevision(t *testing.T, s *Store, want int64) {
	t.Helper()
	if page, err := s.List(t.Context(), "", store.ListOptions{}); err != nil || page.Revision != want {
		t.Errorf("list at revision %d, %v; want %d", page.Revision, err, want)
	}
}
