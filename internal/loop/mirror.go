package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Change is one object before and after a transaction. Old is nil for a new object. New is nil for a deleted one.
type Change struct{ Old, New proto.Message }

// Object returns the new object, or the old one if the object was deleted.
func (c Change) Object() proto.Message {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// MirrorConfig configures a Mirror.
type MirrorConfig struct {
	Client carav1.WatchServiceClient
	// Kinds to mirror, as returned by api.Kind.
	Kinds []string
	// OnChange is called with each transaction, in order, while the mirror is locked. State that a loop derives from the
	// objects therefore changes together with them. OnChange must not block and must not call the mirror. No lock that it takes
	// may be held during a call of the mirror.
	OnChange func([]Change)
	// Wake is called with each key for which Reached returned false, once the mirror shows its revision. It must not block and
	// must not call the mirror.
	Wake   func(key string)
	Logger *slog.Logger
}

// Mirror is a copy of all objects of some kinds, maintained by list and watch.
type Mirror struct {
	cfg    MirrorConfig
	synced chan struct{} // closed after the first complete list

	mu       sync.RWMutex
	kinds    map[string]*btree.BTreeG[entry]
	revision int64
	waiting  map[string]int64 // by key: the revision it waits for
}

type entry struct {
	name string
	obj  proto.Message
}

// NewMirror returns a Mirror that is empty until Run fills it.
func NewMirror(cfg MirrorConfig) *Mirror {
	return &Mirror{cfg: cfg, synced: make(chan struct{}), kinds: emptyKinds(cfg.Kinds), waiting: map[string]int64{}}
}

func emptyKinds(names []string) map[string]*btree.BTreeG[entry] {
	kinds := make(map[string]*btree.BTreeG[entry], len(names))
	for _, k := range names {
		kinds[k] = btree.NewG(32, func(a, b entry) bool { return a.name < b.name })
	}
	return kinds
}

// WaitSynced waits for the first complete list.
func (m *Mirror) WaitSynced(ctx context.Context) error {
	select {
	case <-m.synced:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Revision returns the store's revision that the mirror shows.
func (m *Mirror) Revision() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.revision
}

// Reached reports whether the mirror, and all that OnChange derives from it, shows a revision. This is how a loop reads its
// own writes: it passes the revision of its newest write before it looks at anything, and does nothing if the result is
// false. Once the mirror shows the revision, Wake is called with the key.
func (m *Mirror) Reached(revision int64, key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revision >= revision {
		return true
	}
	m.waiting[key] = revision
	return false
}

// Get returns the object of T's kind with the given name.
func Get[T proto.Message](m *Mirror, name string) (T, bool) {
	var zero T
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.tree(zero).Get(entry{name: name})
	if !ok {
		return zero, false
	}
	return e.obj.(T), true
}

// All returns every object of T's kind, ordered by name.
func All[T proto.Message](m *Mirror) []T { return AllPrefix[T](m, "") }

// AllPrefix returns the objects of T's kind whose names begin with prefix, ordered by name.
func AllPrefix[T proto.Message](m *Mirror, prefix string) []T {
	var zero T
	m.mu.RLock()
	defer m.mu.RUnlock()
	tree := m.tree(zero)
	var all []T
	if prefix == "" {
		all = make([]T, 0, tree.Len())
	}
	tree.AscendGreaterOrEqual(entry{name: prefix}, func(e entry) bool {
		if !strings.HasPrefix(e.name, prefix) {
			return false
		}
		all = append(all, e.obj.(T))
		return true
	})
	return all
}

// tree returns the tree for a message's kind. It panics if the kind is not mirrored, since that is a bug in the caller.
func (m *Mirror) tree(msg proto.Message) *btree.BTreeG[entry] {
	tree, ok := m.kinds[api.Kind(msg)]
	if !ok {
		panic(fmt.Sprintf("loop: kind %q is not mirrored (have %s)", api.Kind(msg), strings.Join(m.cfg.Kinds, ", ")))
	}
	return tree
}

// Run maintains the mirror until ctx ends. After every failure it reconnects and resumes at its revision, or lists
// everything again if the server no longer has that revision.
func (m *Mirror) Run(ctx context.Context) error {
	wait := NewBackoff(50*time.Millisecond, 5*time.Second)
	down := false
	for {
		progressed, err := m.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if progressed {
			down = false
		}
		if api.IsGone(err) {
			m.mu.Lock()
			m.revision = 0
			m.mu.Unlock()
		}
		if !down {
			m.cfg.Logger.Warn("watch interrupted", "kinds", m.cfg.Kinds, "rev", m.Revision(), "error", err)
			down = true
		}
		wait.Wait(ctx)
	}
}

// stream follows one watch until it ends. It reports whether it received anything.
func (m *Mirror) stream(ctx context.Context) (progressed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := &carav1.WatchRequest{Kinds: m.cfg.Kinds}
	if rev := m.Revision(); rev > 0 {
		req.ResourceVersion = api.FormatRevision(rev)
	}
	watch, err := m.cfg.Client.Watch(ctx, req)
	if err != nil {
		return false, fmt.Errorf("watch %v: %w", m.cfg.Kinds, err)
	}
	first := emptyKinds(m.cfg.Kinds)
	listing := req.ResourceVersion == ""
	for {
		msg, err := watch.Recv()
		if err != nil {
			return progressed, fmt.Errorf("watch %v: %w", m.cfg.Kinds, err)
		}
		progressed = true
		if listing {
			if err := add(first, msg.Changes); err != nil {
				return progressed, err
			}
			if !msg.Synced {
				continue // a part of the first list has no revision to resume from
			}
		}
		rev, ok := api.ParseRevision(msg.ResourceVersion)
		if !ok {
			return progressed, fmt.Errorf("watch %v: revision %q is not a number", m.cfg.Kinds, msg.ResourceVersion)
		}
		if listing {
			m.replace(rev, first)
			listing, first = false, nil
		} else {
			m.commit(rev, msg.Changes)
		}
	}
}

func add(kinds map[string]*btree.BTreeG[entry], changes []*carav1.Change) error {
	for _, c := range changes {
		obj := api.Unwrap(c.Object)
		tree, ok := kinds[api.Kind(obj)]
		if !ok {
			return errors.New("watch sent a kind that was not asked for")
		}
		tree.ReplaceOrInsert(entry{api.Meta(obj).GetName(), obj})
	}
	return nil
}

func (m *Mirror) commit(rev int64, changes []*carav1.Change) {
	done := make([]Change, 0, len(changes))
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		obj := api.Unwrap(c.Object)
		tree, ok := m.kinds[api.Kind(obj)]
		if !ok {
			continue
		}
		name := api.Meta(obj).GetName()
		if c.Deleted {
			if old, had := tree.Delete(entry{name: name}); had {
				done = append(done, Change{Old: old.obj})
			}
			continue
		}
		old, _ := tree.ReplaceOrInsert(entry{name, obj})
		done = append(done, Change{Old: old.obj, New: obj})
	}
	m.revision = rev
	m.tell(done)
}

// replace swaps in a new list and notifies OnChange of the differences.
func (m *Mirror) replace(rev int64, kinds map[string]*btree.BTreeG[entry]) {
	var done []Change
	m.mu.Lock()
	defer m.mu.Unlock()
	for kind, fresh := range kinds {
		old := m.kinds[kind]
		fresh.Ascend(func(e entry) bool {
			was, had := old.Get(entry{name: e.name})
			if !had || version(was.obj) != version(e.obj) {
				done = append(done, Change{Old: was.obj, New: e.obj})
			}
			return true
		})
		old.Ascend(func(e entry) bool {
			if !fresh.Has(entry{name: e.name}) {
				done = append(done, Change{Old: e.obj})
			}
			return true
		})
	}
	m.kinds, m.revision = kinds, rev
	m.tell(done)
	select {
	case <-m.synced:
	default:
		close(m.synced)
	}
}

func version(obj proto.Message) string { return api.Meta(obj).GetResourceVersion() }

// tell notifies OnChange, then wakes the keys that waited for this revision. m.mu is held.
func (m *Mirror) tell(changes []Change) {
	if len(changes) > 0 && m.cfg.OnChange != nil {
		m.cfg.OnChange(changes)
	}
	for key, revision := range m.waiting {
		if m.revision < revision {
			continue
		}
		delete(m.waiting, key)
		if m.cfg.Wake != nil {
			m.cfg.Wake(key)
		}
	}
}
