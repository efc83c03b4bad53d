package agent_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func topOf(follow bool, services ...string) *carav1.OpenStream {
	return &carav1.OpenStream{Kind: &carav1.OpenStream_Top{Top: &carav1.TopRequest{Name: "p", Services: services, Follow: follow}}}
}

// measured are the services of a look.
func measured(m *carav1.AttachRequest) string {
	names := map[string]bool{}
	for _, u := range m.GetTop().GetServices() {
		names[u.GetService()] = u.GetMemoryBytes() > 0
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ",")
}

func TestTop(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web", "web"))
	some := func(all []*carav1.AttachRequest) bool { return len(all) > 0 }
	for id, c := range map[string]struct {
		open *carav1.OpenStream
		want string
	}{"all": {topOf(false), "a,b"}, "one": {topOf(false, "b"), "b"}} {
		f.open(id, c.open)
		if got := measured(f.heard(t, id, some)[0]); got != c.want {
			t.Errorf("%s: %s, want %s", id, got, c.want)
		}
	}

	f.open("watch", topOf(true))
	shows := func(want string) {
		t.Helper()
		f.heard(t, "watch", func(all []*carav1.AttachRequest) bool { return len(all) > 0 && measured(all[len(all)-1]) == want })
	}
	shows("a,b")
	f.put("p", services("web"))
	shows("a")
	f.mu.Lock()
	close(f.leave["watch"])
	f.mu.Unlock()
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.closed["watch"]
	})
	before := f.engine.Calls("Stats")
	beats := f.beatCount()
	waitUntil(t, func() bool { return f.beatCount() > beats+1 })
	if now := f.engine.Calls("Stats"); now > before+2 { // one that was under way may come to its end
		t.Errorf("%d figures were asked for when nobody looks", now-before)
	}

	f.open("none", topOf(false, "z"))
	if m := f.heard(t, "none", some)[0]; !strings.Contains(m.GetError(), "nothing to measure") {
		t.Errorf("of a service that does not run: %v", m)
	}
}
