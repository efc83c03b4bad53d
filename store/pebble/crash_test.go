package pebble

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/store"
)

var (
	crashSeed = flag.Uint64("crash.seed", 0, "replay TestCrash with this seed alone")
	crashRuns = flag.Int("crash.runs", 30, "how many seeds TestCrash tries")
)

// TestCrash runs stores on a disk that loses power, several times in a row. Each time it runs random transactions, first one
// by one, then from many goroutines while a copy of the disk is taken at a random moment, as a power failure would leave it.
// The next store starts from that copy. Everything acknowledged before that moment must exist, with its revision. And what
// exists must be a complete part of the history that the previous store went on to acknowledge.
func TestCrash(t *testing.T) {
	seeds := []uint64{*crashSeed}
	if *crashSeed == 0 {
		seeds = nil
		for range *crashRuns {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Logf("replay with: go test ./store/pebble -run TestCrash -crash.seed=%d", seed)
				}
			}()
			rng := rand.New(rand.NewPCG(seed, 0))
			disk := vfs.NewCrashableMem()
			m := newModel()
			retain := int64(20 + rng.IntN(200))
			for range 4 {
				disk, m = live(t, rng, retain, disk, m)
			}
		})
	}
}

// live opens the store on disk, which must be as m says, uses it, and returns what a crash left of both.
func live(t *testing.T, rng *rand.Rand, retain int64, disk *vfs.MemFS, m *model) (*vfs.MemFS, *model) {
	t.Helper()
	s, err := Open(Config{Dir: "data", FS: disk, RetainRevisions: retain, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	v := m.revision()
	page, err := s.List(t.Context(), "", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if m = m.cut(min(page.Revision, v)); page.Revision > v {
		t.Fatalf("store is at revision %d, the life before ended at %d", page.Revision, v)
	}
	m.check(t, s)
	runAlone(t, rng, s, m)
	m.check(t, s)
	copied, least := runTogether(t, rng, s, m)
	m.check(t, s)
	if left := revisionOn(t, copied); left < least {
		t.Fatalf("after the crash the store is at revision %d, and %d was acknowledged", left, least)
	}
	return copied, m
}

// revisionOn opens the store that a crash left, as it would be found.
func revisionOn(t *testing.T, disk *vfs.MemFS) int64 {
	t.Helper()
	// Recovery writes too: use a copy, so that the next store recovers the same disk itself.
	s, err := Open(Config{Dir: "data", FS: disk.CrashClone(vfs.CrashCloneCfg{})})
	if err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	page, err := s.List(t.Context(), "", store.ListOptions{Limit: 1})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return page.Revision
}

func runAlone(t *testing.T, rng *rand.Rand, s *Store, m *model) {
	t.Helper()
	for range rng.IntN(120) {
		txn := randomTxn(rng, func(key string) int64 {
			if rng.IntN(8) == 0 {
				return rng.Int64N(m.revision() + 2)
			}
			return m.objects[key].Modified
		})
		want, wantErr := m.commit(txn)
		got, err := s.Commit(t.Context(), txn)
		if diff := cmp.Diff(fmt.Sprint(want, wantErr), fmt.Sprint(got, err)); diff != "" {
			t.Fatalf("commit %v (-model +store):\n%s", txn, diff)
		}
		if rng.IntN(40) == 0 && m.revision() > 0 {
			m.compacted = max(m.compacted, rng.Int64N(m.revision()+1))
			if err := s.Compact(t.Context(), m.compacted); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// history collects what was acknowledged while several writers run.
type history struct {
	mu    sync.Mutex
	txns  map[int64]store.Txn
	least int64 // the newest acknowledged revision
}

// runTogether returns the disk as a crash in the middle leaves it, and the revision that it must have at least. The
// model has then taken all that was acknowledged, in the order of revisions.
func runTogether(t *testing.T, rng *rand.Rand, s *Store, m *model) (*vfs.MemFS, int64) {
	t.Helper()
	disk := s.cfg.FS.(*vfs.MemFS)
	h := &history{txns: map[int64]store.Txn{}, least: m.revision()}
	const writers, each = 6, 12
	moment := make(chan struct{})
	crashAfter := rng.IntN(writers*each/2) + 1
	percent := rng.IntN(101)
	crashRng := rand.New(rand.NewPCG(rng.Uint64(), 2))
	var wg sync.WaitGroup
	for w := range writers {
		wrng := rand.New(rand.NewPCG(rng.Uint64(), 1))
		wg.Go(func() {
			for i := range each {
				txn := randomTxn(wrng, func(string) int64 { return wrng.Int64N(m.compacted + 50) })
				if wrng.IntN(4) > 0 {
					txn.If = nil
				}
				txn.Do = append(txn.Do, store.Op{Key: fmt.Sprintf("w/%d/%d", w, i), Value: []byte("w")}) // so that it changes something
				got, err := s.Commit(t.Context(), txn)
				if errors.Is(err, store.ErrConflict) {
					continue
				}
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				if h.add(got, txn) == crashAfter {
					close(moment)
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-moment:
	case <-ended:
	}
	h.mu.Lock()
	least := h.least
	h.mu.Unlock()
	copied := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: crashRng})
	<-ended
	h.replay(t, m)
	return copied, least
}

// add returns how many transactions were acknowledged so far.
func (h *history) add(revision int64, txn store.Txn) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.least = max(h.least, revision)
	h.txns[revision] = txn
	return len(h.txns)
}

func (h *history) replay(t *testing.T, m *model) {
	t.Helper()
	for m.revision() < h.least {
		next := m.revision() + 1
		if got, err := m.commit(h.txns[next]); err != nil || got != next {
			t.Fatalf("revision %d was acknowledged for %v, which the model answers with %d, %v", next, h.txns[next], got, err)
		}
	}
}
