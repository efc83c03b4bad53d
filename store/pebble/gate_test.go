package pebble

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// gate holds back syncs of the write-ahead log, so that a test can look at the moment between write and sync.
type gate struct {
	mu      sync.Mutex
	closed  chan struct{} // non-nil while shut; closed to let through
	waiting chan struct{}
}

func newGate() *gate { return &gate{waiting: make(chan struct{}, 1)} }

func (g *gate) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if strings.HasSuffix(op.Path, ".log") {
				g.pass()
			}
		default:
		}
		return nil
	}))
}

func (g *gate) pass() {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed == nil {
		return
	}
	select {
	case g.waiting <- struct{}{}:
	default:
	}
	<-closed
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.closed)
	g.closed = nil
}

func (g *gate) waitForSync(t *testing.T) {
	t.Helper()
	select {
	case <-g.waiting:
	case <-time.After(60 * time.Second):
		t.Fatal("nothing is being synced")
	}
}
