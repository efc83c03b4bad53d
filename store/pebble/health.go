package pebble

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	lockName   = "LOCK"           // Pebble's
	sayEvery   = 30 * time.Second // minimum time between two log lines about the same cause
	probeEvery = 2 * time.Second  // how often a full disk is tried again
	probeBytes = 4 << 20          // enough for the log, and for a memtable that is flushed to disk
	probeName  = "room.probe"
	hangs      = 10 * time.Second // a write that takes longer makes the store unhealthy
	lookEvery  = time.Second      // how often an idle store checks its directory
)

// Causes of trouble. Err returns the first one in this order.
const (
	causeFull       = "disk full"
	causeCorrupt    = "corrupt data"
	causeBackground = "background"
)

// health tracks what keeps a store from writing. Pebble's events and the disk report to it.
type health struct {
	fs   vfs.FS
	disk vfs.FS // fs, but a write to a full disk waits until there is space: see awaitRoom
	dir  string
	log  *slog.Logger
	stop chan struct{} // closed when the store ends; ends all waits for space

	probeEvery time.Duration
	stopOnce   sync.Once
	first      chan error // the first background failure; only Open receives from it

	mu       sync.Mutex
	troubles map[string]error
	full     chan struct{} // closed while the disk is full
	said     map[string]*line
	failed   error // error of the last compaction
}

// line records when a cause was last logged, and how many lines were suppressed since.
type line struct {
	at      time.Time
	dropped int
}

func newHealth(cfg Config) *health {
	h := &health{
		fs: cfg.FS, dir: cfg.Dir, log: cfg.Logger, stop: make(chan struct{}), probeEvery: cmp.Or(cfg.probeEvery, probeEvery),
		troubles: map[string]error{}, full: make(chan struct{}), first: make(chan error, 1), said: map[string]*line{},
	}
	h.disk = vfs.OnDiskFull(h.fs, h.awaitRoom)
	return h
}

// end ends all waits for space.
func (h *health) end() { h.stopOnce.Do(func() { close(h.stop) }) }

// err returns the most important trouble, or nil.
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, cause := range []string{causeFull, causeCorrupt, causeBackground} {
		if err := h.troubles[cause]; err != nil {
			return err
		}
	}
	return nil
}

// trouble sets the trouble of a cause, or clears it if err is nil.
func (h *health) trouble(cause string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubles[cause] = err
}

// say logs at most one line per cause and sayEvery, with the number of suppressed lines.
func (h *health) say(log func(string, ...any), cause, text string, args ...any) {
	h.mu.Lock()
	l := h.said[cause]
	if l == nil {
		l = &line{}
		h.said[cause] = l
	}
	now := time.Now()
	if !l.at.IsZero() && now.Sub(l.at) < sayEvery {
		l.dropped++
		h.mu.Unlock()
		return
	}
	if l.dropped > 0 {
		args = append(args, "repeated", l.dropped)
	}
	l.at, l.dropped = now, 0
	h.mu.Unlock()
	log(text, args...)
}

// awaitRoom makes a write to a full disk wait instead of failing. Pebble cannot continue after a failed write, so without
// this a disk that was full for a moment would end the store. The file system disk never calls it concurrently. It returns
// when the disk has space, when the disk fails in another way, or when the store ends. Meanwhile Err returns the reason, and
// Commit returns it immediately.
func (h *health) awaitRoom() {
	h.mu.Lock()
	h.troubles[causeFull] = fmt.Errorf("no space left on the disk of %s: free some; the store goes on by itself then", h.dir)
	close(h.full)
	h.mu.Unlock()
	h.say(h.log.Error, causeFull, "the disk is full: the store waits for room and takes no writes", "dir", h.dir)
	defer func() {
		h.mu.Lock()
		delete(h.troubles, causeFull)
		h.full = make(chan struct{})
		h.mu.Unlock()
	}()
	tick := time.NewTicker(h.probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.stop:
			return
		}
		switch err := h.probe(probeBytes); {
		case err == nil:
			h.log.Info("the disk has room again: the store takes writes", "dir", h.dir)
			return
		case !isFull(err):
			h.say(h.log.Error, "probe", "the disk cannot be written", "dir", h.dir, "error", err)
			return
		}
		h.say(h.log.Error, causeFull, "the disk is full: the store waits for room and takes no writes", "dir", h.dir)
	}
}

// writable returns why the directory cannot be written. A full disk does not count.
func (h *health) writable() error {
	if err := h.probe(1); !isFull(err) {
		return err
	}
	return nil
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// probe writes a file of the given size and deletes it.
func (h *health) probe(bytes int) (err error) {
	path := h.fs.PathJoin(h.dir, probeName)
	f, err := h.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), h.fs.Remove(path)) }()
	block := make([]byte, min(bytes, 64<<10))
	for range bytes / len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}

// blocked returns a channel that is closed while the disk is full.
func (h *health) blocked() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.full
}

// refusal returns the error for a transaction while the disk is full.
func (h *health) refusal() error {
	if err := h.err(); err != nil {
		return err
	}
	return fmt.Errorf("the disk of %s was full a moment ago: try again", h.dir)
}

// acknowledge writes the mark. The group is durable without it, so a failure is only logged.
func (h *health) acknowledge(m *mark, revision int64) {
	if err := m.write(revision); err != nil {
		h.say(h.log.Warn, markName, "store cannot note its newest revision: lost writes may go unnoticed after a crash", "dir", h.dir, "error", err)
	}
}

// compacted is called with the result of each compaction.
func (h *health) compacted(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed = err; err == nil {
		delete(h.troubles, causeBackground)
	}
}

// background is called when background work fails. Pebble retries a flush immediately and forever, and holds its lock during
// this call, so background waits a second to prevent a busy loop. A failed compaction is paused by compactionPause instead.
func (h *health) background(err error) {
	h.mu.Lock()
	compaction := h.failed != nil && errors.Is(err, h.failed)
	h.troubles[causeBackground] = fmt.Errorf("the store cannot sort its data to the disk of %s, it tries again: %w", h.dir, err)
	h.mu.Unlock()
	h.say(h.log.Error, causeBackground, "store cannot write in the background, it tries again", "error", err)
	select {
	case h.first <- err:
	default:
	}
	if !compaction {
		<-time.After(time.Second)
	}
}

// corrupt is called for data that cannot be read. The trouble stays until the process restarts.
func (h *health) corrupt(path string, err error) {
	h.trouble(causeCorrupt, fmt.Errorf("%s is damaged: stop the server and restore the data directory from a backup: %w", path, err))
	h.say(h.log.Error, causeCorrupt, "store has found corrupt data: restore the data directory from a backup", "path", path, "error", err)
}

// present reports an error if the directory is not the one that was opened. first describes the lock file as it was then. A
// deleted file stays writable for the process that has it open, and is lost when the process ends.
func (h *health) present(first vfs.FileInfo) error {
	now, err := h.fs.Stat(h.fs.PathJoin(h.dir, lockName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the data directory %s was deleted or moved while the server ran: put it back, or restore it from a backup", h.dir)
	case err != nil:
		return fmt.Errorf("look for the data directory: %w", err)
	case identity(first) != identity(now):
		return fmt.Errorf("the data directory %s was replaced by another while the server ran: start the server again to use it", h.dir)
	}
	return nil
}

// identity identifies a file independent of its path. It is zero for files in memory.
func identity(f vfs.FileInfo) (id struct{ device, inode uint64 }) {
	if st, ok := f.Sys().(*syscall.Stat_t); ok {
		id.device, id.inode = uint64(st.Dev), st.Ino //nolint:unconvert // its type depends on the platform
	}
	return id
}
