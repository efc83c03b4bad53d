package dir

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watcher hears of changes. What it misses, a rescan finds.
type watcher struct {
	cfg  Config
	root string

	mu       sync.Mutex
	notify   *fsnotify.Watcher // nil while nobody watches
	poke     func()
	dirs     []string // of the last scan
	degraded string
}

// Degraded says why changes are found by polling only.
func (w *watcher) Degraded() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.degraded
}

// Watch calls changed when something happened and it then was quiet, or went on for too long.
func (w *watcher) Watch(ctx context.Context, changed func()) {
	notify, err := w.cfg.NewWatcher()
	if err != nil {
		w.mu.Lock()
		w.degraded = refused(err)
		w.mu.Unlock()
		<-ctx.Done()
		return
	}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.notify, w.poke = nil, nil
		_ = notify.Close() // nothing to lose: hints only
	}()
	w.mu.Lock()
	w.notify, w.poke = notify, changed
	dirs := w.dirs
	w.mu.Unlock()
	if dirs != nil {
		w.sync(dirs)
	}
	changed() // what happened before the watch began
	w.listen(ctx, notify, changed)
}

// listen gathers what happens until it is quiet.
func (w *watcher) listen(ctx context.Context, notify *fsnotify.Watcher, changed func()) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	var since time.Time // of the first event that was not told; zero where all were
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			since = time.Time{}
			changed()
			continue
		case e, ok := <-notify.Events:
			if !ok {
				return
			}
			if !w.concerns(e) {
				continue
			}
		case _, ok := <-notify.Errors: // an overflow: something changed, but it is not known what
			if !ok {
				return
			}
		}
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		timer.Reset(max(0, min(w.cfg.Quiet, w.cfg.AtMost-now.Sub(since))))
	}
}

// concerns reports whether an event can have changed what a scan finds.
func (w *watcher) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	if filepath.Dir(e.Name) == filepath.Dir(w.root) {
		return e.Name == w.root // of the root's parent only the root matters
	}
	name := filepath.Base(e.Name)
	return !temporary(name) && (!strings.HasPrefix(name, ".") || strings.HasPrefix(name, ".."))
}

// sync watches the folders that a scan found, and the root's parent, where the root itself comes and goes.
func (w *watcher) sync(dirs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirs = dirs
	if w.notify == nil {
		return
	}
	have := w.notify.WatchList()
	slices.Sort(have)
	added, trouble := false, ""
	want := append([]string{filepath.Dir(w.root)}, dirs...)
	for _, dir := range want {
		if _, ok := slices.BinarySearch(have, dir); ok {
			continue
		}
		err := w.notify.Add(dir)
		switch {
		case err == nil:
			added = true
		case errors.Is(err, syscall.ENOENT):
		case dir == filepath.Dir(w.root): // may be closed to us; the rescan has to do
		default:
			trouble = refused(err)
		}
		if trouble != "" {
			break
		}
	}
	slices.Sort(want)
	for _, dir := range have {
		if _, ok := slices.BinarySearch(want, dir); !ok {
			_ = w.notify.Remove(dir) // it is gone already, or is about to be
		}
	}
	w.degraded = trouble
	if added && w.poke != nil {
		w.poke() // what was written into a new folder before it was watched
	}
}

func refused(err error) string {
	hint := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		hint = "; raise fs.inotify.max_user_watches and fs.inotify.max_user_instances"
	}
	return fmt.Sprintf("the kernel refuses file watches (%s), so changes are noticed within 15s%s", reason(err), hint)
}
