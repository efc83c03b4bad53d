package ui

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caravanserai/cara/apiserver/state"
)

const (
	// A view is rendered at most every minPause, and at least every maxPause if something has changed.
	minPause = 200 * time.Millisecond
	maxPause = 8 * time.Second
	// share is the part of the time that all open views together may use: one of so many parts.
	share = 40
	// perByte is about how long it takes to send a byte of a view.
	perByte = time.Nanosecond
)

// watched are the views that streams follow, by what they depend on. All streams of a view get the same renderings.
type watched struct {
	mu    sync.Mutex
	views map[string]*watchedView
}

// watchedView is one view that streams follow.
type watchedView struct {
	key     string
	streams int // under the lock of watched

	rendering sync.Mutex // one at a time
	mu        sync.Mutex
	newest    *rendered // nil before the first one
	next      time.Time // when a stream may render again
}

// rendered is a view as the browser gets it. It does not change.
type rendered struct {
	view view
	at   int64 // the revision before it was rendered: it shows at least this state
	id   string
	sent []byte // the event for the browser, which is the same for all streams
}

// audience is who sees the same in a view.
type audience int

const (
	sameRights  audience = iota // those who may change the same objects: the view offers that
	sameRole                    // those with the same role
	sameSession                 // nobody else
)

// audienceOf returns the audience of the view of a path.
func audienceOf(path string) audience {
	switch path {
	case pathSessions:
		return sameSession
	case "{$}", "projects", "sources", "nodes", "volumes", "secrets", "tokens", "servers", "search": // reading is not limited by names
		return sameRole
	}
	return sameRights
}

// keyOf returns what a view depends on: its address, and who asks.
func keyOf(r *http.Request, of audience) string {
	a, query := actorOf(r), r.URL.Query()
	query.Del("seen")
	key := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	switch of {
	case sameSession:
		return fmt.Sprintf("%s session %s", &key, a.Session)
	case sameRole:
		return fmt.Sprintf("%s role %s", &key, a.Role)
	case sameRights:
	}
	return fmt.Sprintf("%s role %s for %q and %q", &key, a.Role, a.NamePrefixes, a.Hosts)
}

// join returns the view with a key, for one more stream. The stream must leave it.
func (w *watched) join(key string) *watchedView {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.views == nil {
		w.views = map[string]*watchedView{}
	}
	v := w.views[key]
	if v == nil {
		v = &watchedView{key: key}
		w.views[key] = v
	}
	v.streams++
	return v
}

func (w *watched) leave(v *watchedView) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v.streams--; v.streams == 0 {
		delete(w.views, v.key)
	}
}

// open returns how many views are open, and how many streams follow v.
func (w *watched) open(v *watchedView) (views, streams int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.views), v.streams
}

// pause returns how long a view waits after a rendering that took this long.
func pause(took time.Duration, size, streams, views int) time.Duration {
	cost := took + time.Duration(size*streams)*perByte
	return min(max(minPause, cost*share*time.Duration(views)), maxPause)
}

// get returns a rendering that shows at least a revision, and not the one that the stream has. It renders the view if another stream
// has not done that yet. An error is not shared: the next stream tries itself.
func (w *watched) get(v *watchedView, revision int64, has *rendered, render func() (*rendered, error)) (*rendered, error) {
	v.rendering.Lock()
	defer v.rendering.Unlock()
	if n := v.last(); n != nil && n != has && n.at >= revision {
		return n, nil
	}
	began := time.Now()
	n, err := render()
	if err != nil {
		return nil, err
	}
	views, streams := w.open(v)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.newest, v.next = n, time.Now().Add(pause(time.Since(began), len(n.sent), streams, views))
	return n, nil
}

func (v *watchedView) last() *rendered {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.newest
}

// ready reports whether a stream may have a revision now: there is a rendering of it, or it is time for one.
func (v *watchedView) ready(revision int64) bool {
	return v.rest() == 0 || v.last().at >= revision
}

// rest returns how long no stream may render the view.
func (v *watchedView) rest() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return max(time.Until(v.next), 0)
}

// changed reports whether an object that the view shows has changed after a revision. If none has, it returns the revision up
// to which that is known, and what to wait for.
func (v view) changed(cache *state.Cache, at int64) (changed bool, upTo int64, wake <-chan struct{}) {
	for {
		txs, wake, ok := cache.After(at)
		switch {
		case !ok:
			return true, cache.Revision(), nil // too far behind
		case len(txs) == 0:
			return false, at, wake
		}
		for _, tx := range txs {
			if slices.ContainsFunc(tx.Changes, v.shows) {
				return true, tx.Rev, nil
			}
		}
		at = txs[len(txs)-1].Rev
	}
}
