package ui

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A change renders a view again if the view shows its object. The state of a project depends on its node.
func TestViewShows(t *testing.T) {
	about := func(name string) *carav1.Event {
		return &carav1.Event{Object: &carav1.ObjectRef{Kind: api.KindProject, Name: name}}
	}
	all := view{kinds: []string{api.KindProject, api.KindNode}}
	shop := view{name: "shop", source: "platform", kinds: []string{
		api.KindProject, api.KindEvent, api.KindOverride, api.KindVolume, api.KindNode, api.KindSource, api.KindClaim,
	}}
	platform := view{name: "platform", kinds: []string{api.KindSource, api.KindClaim}}
	for _, tt := range []struct {
		name string
		view view
		give state.Change
		want bool
	}{
		{"a project in the list", all, state.Change{Kind: api.KindProject, Name: "shop"}, true},
		{"a source and the list of projects", all, state.Change{Kind: api.KindSource, Name: "shop"}, false},
		{"the project", shop, state.Change{Kind: api.KindProject, Name: "shop"}, true},
		{"another project", shop, state.Change{Kind: api.KindProject, Name: "blog"}, false},
		{"the override", shop, state.Change{Kind: api.KindOverride, Name: "shop"}, true},
		{"another override", shop, state.Change{Kind: api.KindOverride, Name: "blog"}, false},
		{"a node", shop, state.Change{Kind: api.KindNode, Name: "n1"}, true},
		{"its event", shop, state.Change{Kind: api.KindEvent, Name: "1", New: about("shop")}, true},
		{"its event is deleted", shop, state.Change{Kind: api.KindEvent, Name: "1", Old: about("shop")}, true},
		{"another event", shop, state.Change{Kind: api.KindEvent, Name: "1", Old: about("blog"), New: about("blog")}, false},
		{"the project's source", shop, state.Change{Kind: api.KindSource, Name: "platform"}, true},
		{"a source that has the project's name", shop, state.Change{Kind: api.KindSource, Name: "shop"}, false},
		{"the project's claim", shop, state.Change{Kind: api.KindClaim, Name: "platform/shop"}, true},
		{"another claim of the project's source", shop, state.Change{Kind: api.KindClaim, Name: "platform/blog"}, false},
		{"its claim", platform, state.Change{Kind: api.KindClaim, Name: "platform/shop"}, true},
		{"a claim of another source", platform, state.Change{Kind: api.KindClaim, Name: "platform2/shop"}, false},
	} {
		if got := tt.view.shows(tt.give); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A stream is so far behind that the changes are no longer in memory, and another stream has just rendered the view. It gets the view
// when the pause ends.
func TestWaitFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &UI{Config: Config{Cache: state.NewCache(1)}}
		for i, name := range []string{"shop", "blog", "blog"} {
			u.Cache.Apply(state.Transaction{Rev: int64(i + 2), Changes: []state.Change{{
				Kind: api.KindProject, Name: name, New: &carav1.Project{Metadata: &carav1.ObjectMeta{Name: name}},
			}}})
		}
		got := &rendered{at: 1, view: view{name: "shop", kinds: []string{api.KindProject}}}
		v := &watchedView{newest: got, next: time.Now().Add(minPause)}
		time.AfterFunc(minPause/2, func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.newest, v.next = &rendered{at: 2, view: got.view}, time.Now().Add(maxPause)
		})
		s := openStream(httptest.NewRecorder(), eventStream)
		defer s.close()
		if at := u.wait(s, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody), v, got); at != 4 {
			t.Errorf("it waits for revision %d, want 4", at)
		}
	})
}
