package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/caravanserai/cara/store"
)

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// full makes every write meet a full disk while it is on.
func full() *errorfs.Toggle { return failing(syscall.ENOSPC) }

func failing(err error) *errorfs.Toggle {
	return &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpFileWriteAt, errorfs.OpReuseForWrite:
			return err
		default:
			return nil
		}
	})}
}

// eventually waits until so is true.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !so(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not within 30 s: " + what)
		}
	}
}

// A full disk is reported immediately by Err and by every Commit. Reads continue, and so do writes once there is space.
func TestFullDiskIsWaitedOut(t *testing.T) {
	fault, log := full(), &lines{}
	s := openTest(t, Config{
		Dir: "data", FS: errorfs.Wrap(vfs.NewMem(), fault), probeEvery: time.Millisecond, Logger: log.logger(),
	})
	put1(t, s, "before")
	fault.On()
	for i := range 20 {
		if _, err := s.Commit(t.Context(), pair(fmt.Sprint(i))); err == nil || !strings.Contains(err.Error(), "no space left on the disk of data") {
			t.Fatalf("commit %d on a full disk: %v", i, err)
		}
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "goes on by itself") {
		t.Errorf("Err of a full disk: %v", err)
	}
	if _, err := s.Get(t.Context(), "before"); err != nil {
		t.Errorf("get on a full disk: %v", err)
	}
	select {
	case <-s.Done():
		t.Fatalf("the store has ended: %v", s.Err())
	default:
	}
	fault.Off()
	eventually(t, "the store is well again", func() bool { return s.Err() == nil })
	put1(t, s, "after")
	if n := strings.Count(log.all(), "the disk is full"); n != 1 {
		t.Errorf("%d lines about the full disk, want 1:\n%s", n, log.all())
	}
}

// filled is a store's disk with data in tables and in the log.
func filled(t *testing.T) *vfs.MemFS {
	t.Helper()
	disk := vfs.NewCrashableMem()
	s, err := Open(Config{Dir: "data", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		large := store.Op{Key: "large", Value: make([]byte, 4<<10)} // so that the log has several blocks
		if _, err := s.Commit(t.Context(), store.Txn{Do: append(pair(fmt.Sprint(i)).Do, large)}); err != nil {
			t.Fatal(err)
		}
		if i == 20 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return disk.CrashClone(vfs.CrashCloneCfg{})
}

// A start on a full disk waits for space, logs that once, and returns immediately when it is cancelled.
func TestOpenOnFullDisk(t *testing.T) {
	for name, leave := range map[string]bool{"told to end": true, "room": false} {
		t.Run(name, func(t *testing.T) {
			fault, log := full(), &lines{}
			fault.On()
			cfg := Config{
				Dir: "data", FS: errorfs.Wrap(filled(t), fault), probeEvery: time.Millisecond, Logger: log.logger(),
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			type result struct {
				s   *Store
				err error
			}
			opened := make(chan result, 1)
			go func() {
				s, err := OpenContext(ctx, cfg)
				opened <- result{s, err}
			}()
			eventually(t, "the full disk is told", func() bool { return strings.Contains(log.all(), "the disk is full") })
			if leave {
				cancel()
			} else {
				fault.Off()
			}
			r := <-opened
			fault.Off() // what still opens can end
			if leave {
				if !errors.Is(r.err, context.Canceled) {
					t.Errorf("open: %v, want context.Canceled", r.err)
				}
			} else {
				if r.err != nil {
					t.Fatal(r.err)
				}
				expectRevision(t, r.s, 40)
				if err := r.s.Close(); err != nil {
					t.Error(err)
				}
			}
			if n := strings.Count(log.all(), "level=ERROR"); n > 2 {
				t.Errorf("%d lines:\n%s", n, log.all())
			}
		})
	}
}

// A data directory that is deleted, moved or replaced ends the store, even without writes.
func TestDirectoryGone(t *testing.T) {
	for name, take := range map[string]func(dir string) error{
		"deleted": os.RemoveAll,
		"moved":   func(dir string) error { return os.Rename(dir, dir+".old") },
		"replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, lockName), nil, 0o600))
		},
	} {
		for _, idle := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/idle=%v", name, idle), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "store")
				s, err := Open(Config{Dir: dir})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				put1(t, s, "a")
				if err := take(dir); err != nil {
					t.Fatal(err)
				}
				if !idle {
					if revision, err := s.Commit(t.Context(), store.Txn{Do: []store.Op{{Key: "b"}}}); err == nil {
						t.Errorf("revision %d was acknowledged", revision)
					}
				}
				select {
				case <-s.Done():
				case <-time.After(30 * time.Second):
					t.Fatal("not noticed within 30 s")
				}
				if err := s.Err(); err == nil || !strings.Contains(err.Error(), "the data directory") {
					t.Errorf("Err: %v", err)
				}
			})
		}
	}
}

// Each cause is logged at most once per interval, with the number of suppressed lines. Causes do not suppress each other.
func TestSayBoundsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		h := newHealth(Config{Dir: "d", Logger: log.logger()}.withDefaults())
		for range 1000 {
			h.say(h.log.Error, "a", "first cause")
		}
		h.say(h.log.Error, "b", "second cause")
		<-time.After(sayEvery)
		h.say(h.log.Error, "a", "first cause")
		if n := strings.Count(log.all(), "first cause"); n != 2 || !strings.Contains(log.all(), "repeated=999") {
			t.Errorf("%d lines of the first cause, want 2 and repeated=999:\n%s", n, log.all())
		}
		if n := strings.Count(log.all(), "second cause"); n != 1 {
			t.Errorf("%d lines of the second cause, want 1", n)
		}
	})
}

// After a failed compaction no compaction is granted for a while, by either of Pebble's methods.
func TestCalmHoldsCompactionsBack(t *testing.T) {
	c := &compactionPause{CompactionScheduler: pebbledb.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()}
	if c.holds() {
		t.Error("holds from the beginning")
	}
	c.failed()
	if ok, _ := c.TrySchedule(); ok {
		t.Error("grants a compaction after a failure")
	}
	if ok, _ := (pausedDB{nil, c}).GetWaitingCompaction(); ok {
		t.Error("offers a waiting compaction after a failure")
	}
}

// TestRealFullDisk fills a file system of its own, and gives it room again.
func TestRealFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := openTest(t, Config{Dir: filepath.Join(dir, "store"), probeEvery: 10 * time.Millisecond})
	at := put1(t, s, "before")
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, neverEnding{})
	_ = f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	value := make([]byte, store.MaxValue)
	acked := at
	for i := range 80 { // the log may have room set aside
		revision, err := s.Commit(t.Context(), store.Txn{Do: []store.Op{{Key: fmt.Sprint("k/", i), Value: value}}})
		if err != nil {
			break
		}
		acked = revision
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("Err of a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store is well again", func() bool { return s.Err() == nil })
	if after := put1(t, s, "after"); after <= acked {
		t.Errorf("revision %d after %d", after, acked)
	}
	if _, err := s.Get(t.Context(), "before"); err != nil {
		t.Error(err)
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }
