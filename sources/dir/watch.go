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

	"github.com/caravanserai/cara/internal/text"
)

// watcher reports file changes. A rescan finds what it misses.
type watcher struct {
	cfg  Config
	root string

	mu       sync.Mutex
	notify   *fsnotify.Watcher // nil while Watch is not running
	poke     func()
	dirs     []string // of the last scan
	degraded string
}

// Degraded returns why changes are found only by polling, or an empty string.
func (w *watcher) Degraded() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.degraded
}

const (
	quiet  = 150 * time.Millisecond // without events before a change is reported
	atMost = time.Second            // delay of a change by further changes
)

// Watch calls changed when changes happened and then stopped for a moment, or continued for a second.
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
		_ = notify.Close() // only hints are lost
	}()
	w.mu.Lock()
	w.notify, w.poke = notify, changed
	dirs := w.dirs
	w.mu.Unlock()
	if dirs != nil {
		w.sync(dirs)
	}
	changed() // changes before the watch began
	w.listen(ctx, notify, changed)
}

// listen collects events until none arrives for a while.
func (w *watcher) listen(ctx context.Context, notify *fsnotify.Watcher, changed func()) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	var since time.Time // of the first event that was not reported; zero if there is none
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
		case _, ok := <-notify.Errors: // an overflow: something unknown changed
			if !ok {
				return
			}
		}
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		timer.Reset(max(0, min(quiet, atMost-now.Sub(since))))
	}
}

// concerns reports whether an event can change the result of a scan.
func (w *watcher) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	if filepath.Dir(e.Name) == filepath.Dir(w.root) {
		return e.Name == w.root // in the root's parent, only the root matters
	}
	name := filepath.Base(e.Name)
	return name == ".env" || !temporary(name) && (!strings.HasPrefix(name, ".") || strings.HasPrefix(name, ".."))
}

// sync watches the folders that a scan found, and the root's parent, to notice when the root itself is created or removed.
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
		case dir == filepath.Dir(w.root): // it may be unreadable; the rescan covers it
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
			_ = w.notify.Remove(dir) // it is already gone, or will be soon
		}
	}
	w.degraded = trouble
	if added && w.poke != nil {
		w.poke() // files written into a new folder before it was watched
	}
}

func refused(err error) string {
	hint := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		hint = "; raise fs.inotify.max_user_watches and fs.inotify.max_user_instances"
	}
	return fmt.Sprintf("the kernel refuses file watches (%s), so changes are noticed within 15s%s", text.WithoutPath(err), hint)
}
