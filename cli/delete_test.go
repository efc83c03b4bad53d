package cli

import (
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Each deletion ends only when the maximum number has begun, so sequential deletions would never end.
func TestDeletionsRunInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := make([]string, 3*maxDeletions)
		for i := range names {
			names[i] = strconv.Itoa(i)
		}
		var running, most atomic.Int64
		all := make(chan struct{})
		var told []string
		inParallel(names, func(name string) string {
			defer running.Add(-1)
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
				if n == maxDeletions {
					close(all)
				}
			}
			<-all
			return "answer " + name
		}, func(name, came string) {
			if came != "answer "+name {
				t.Errorf("%s got %s", name, came)
			}
			told = append(told, name)
		})
		if !slices.Equal(told, names) || most.Load() > maxDeletions {
			t.Errorf("told in the order %v, %d at a time", told, most.Load())
		}
	})
}

func TestDeleteSeveral(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	for _, p := range []string{"a", "b", "free"} {
		h.apply(t, p, "nginx:1")
		if p != "free" {
			must(t, h.schedule(t.Context(), p, "Bind", "n1", ""))
		}
	}
	// b is deleted although a, which is before it, still exists; missing objects stop nothing
	out, stop := h.start(t, "delete", "--wait", "project/missing", "project/a", "project/b", "project/free", "node/none", "project/missing")
	asked := "project \"a\" is being deleted\nproject \"b\" is being deleted\nproject \"free\" deleted\n"
	out.until(t, asked)
	must(t, h.remove(t.Context(), "b"))
	must(t, h.remove(t.Context(), "a"))
	missing := "error: project \"missing\" not found\n"
	want := missing + asked + "project \"a\" deleted\nproject \"b\" deleted\nerror: node \"none\" not found\n" + missing
	out.until(t, "\"none\" not found\n"+missing)
	if code := stop(); code != 1 || out.String() != want {
		t.Errorf("ended with %d and\n%s, want\n%s", code, out.String(), want)
	}
}

// A person at a terminal sees which cluster the command will change.
func TestClusterText(t *testing.T) {
	a := &app{link: link{reached: "http://127.0.0.1:8080"}}
	if got := a.clusterText(); got != "http://127.0.0.1:8080" {
		t.Errorf("without a context: %q", got)
	}
	a.cluster = "prod\x1b[31m"
	if got := a.clusterText(); got != "prod (http://127.0.0.1:8080)" {
		t.Errorf("with a context: %q", got)
	}
}
