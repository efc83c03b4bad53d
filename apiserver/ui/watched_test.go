package ui

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/identity"
)

// Streams share the renderings of a view only if its address and their rights are the same.
func TestKeyOf(t *testing.T) {
	key := func(path string, to audience, a identity.Actor) string {
		r, err := http.NewRequestWithContext(admission.WithVisit(t.Context(), &admission.Visit{Actor: a}), http.MethodGet, path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		return keyOf(r, to)
	}
	ada := identity.Actor{Name: "user/ada", Session: "s1", Role: api.RoleDeployer, NamePrefixes: []string{"pr-"}}
	bob, all, admin, hosts := ada, ada, ada, ada
	bob.Name, bob.Session = "user/bob", "s2"
	all.NamePrefixes = nil
	admin.Role = api.RoleAdmin
	hosts.Hosts = []string{"*.example"}
	base := key("/ui/live/projects?q=shop&seen=1", sameRights, ada)
	for name, tt := range map[string]struct {
		got  string
		same bool
	}{
		"another person":         {key("/ui/live/projects?seen=2&q=shop", sameRights, bob), true},
		"another filter":         {key("/ui/live/projects?q=blog", sameRights, ada), false},
		"another view":           {key("/ui/live/nodes?q=shop", sameRights, ada), false},
		"other prefixes":         {key("/ui/live/projects?q=shop", sameRights, all), false},
		"another role":           {key("/ui/live/projects?q=shop", sameRights, admin), false},
		"other hosts":            {key("/ui/live/projects?q=shop", sameRights, hosts), false},
		"a view of one's own":    {key("/ui/live/projects?q=shop", sameSession, ada), false},
		"an escaped question":    {key("/ui/live/projects%3Fq=shop", sameRights, ada), false},
		"two values of a filter": {key("/ui/live/projects?q=shop&q=x", sameRights, ada), false},
	} {
		if same := tt.got == base; same != tt.same {
			t.Errorf("%s: the same is %v, want %v\n%s\n%s", name, same, tt.same, tt.got, base)
		}
	}
	if list := "/ui/live/projects"; key(list, sameRole, ada) != key(list, sameRole, all) || key(list, sameRole, ada) == key(list, sameRole, admin) {
		t.Error("a view for a role depends on the role, and on nothing else of a person")
	}
	if key("/ui/live/sessions", sameSession, ada) == key("/ui/live/sessions", sameSession, bob) {
		t.Error("two people share a view of their own")
	}
}

// A view is rendered once for all streams that want it, and never in parallel. Nobody gets an older state than asked for, the rendering
// that it has, or the error of another.
func TestWatchedView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no pause ends meanwhile
		var w watched
		v := w.join("k")
		if again := w.join("k"); again != v {
			t.Fatal("two streams of a key follow different views")
		}
		made := 0
		at := func(revision int64) func() (*rendered, error) {
			return func() (*rendered, error) { made++; return &rendered{at: revision}, nil }
		}
		first, _ := w.get(v, 3, nil, at(5))
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if got, err := w.get(v, 5, nil, at(5)); err != nil || got != first {
					t.Errorf("got %v, %v; want the first rendering", got, err)
				}
			})
		}
		all.Wait()
		if made != 1 {
			t.Errorf("rendered %d times, want once", made)
		}
		if !v.ready(5) || v.ready(6) {
			t.Error("a stream may have the revision that was rendered, and no newer one before the pause ends")
		}
		if got, _ := w.get(v, 6, first, at(7)); got == first || got.at != 7 {
			t.Errorf("revision 6: got %v, want a newer one", got)
		}
		fresh := v.last()
		if got, _ := w.get(v, 7, fresh, at(7)); got == fresh || made != 3 {
			t.Errorf("a stream that has the newest and wants it again: got it after %d renderings", made)
		}
		bad := errors.New("not for you")
		if _, err := w.get(v, 8, nil, func() (*rendered, error) { return nil, bad }); !errors.Is(err, bad) {
			t.Errorf("got %v, want %v", err, bad)
		}
		if got, err := w.get(v, 7, nil, at(9)); err != nil || got.at != 7 {
			t.Errorf("after an error of another stream: got %v, %v; want revision 7", got, err)
		}
		w.leave(v)
		w.leave(v)
		if len(w.views) != 0 {
			t.Error("a view that nobody follows is kept")
		}
	})
}

// The more is open, the longer the pause, within its limits.
func TestPause(t *testing.T) {
	for _, tt := range []struct {
		took                 time.Duration
		size, streams, views int
		want                 time.Duration
	}{
		{time.Microsecond, 1000, 1, 1, minPause},
		{10 * time.Millisecond, 0, 1, 1, 400 * time.Millisecond},
		{10 * time.Millisecond, 0, 1, 3, 1200 * time.Millisecond},
		{5 * time.Millisecond, 100_000, 50, 1, 400 * time.Millisecond},
		{time.Second, 0, 1, 1, maxPause},
	} {
		if got := pause(tt.took, tt.size, tt.streams, tt.views); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}
