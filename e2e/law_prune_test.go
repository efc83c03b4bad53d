package e2e

import (
	"fmt"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// numbered are n names.
func numbered(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("p%02d", i))
	}
	return names
}

// A row: prune. More than pruneLimit needs a confirmation of this very revision.
func TestLawPruneBeyondTheLimit(t *testing.T) {
	w := law(t)
	names := numbered(10)
	o := w.origin("platform", only("web:1", names...), "pruneLimit: 30")
	w.claim("platform", "p09", "Applied")
	for _, name := range names[:4] {
		o.Remove(name + ".yaml")
	}
	first := o.save("Drop four of ten")
	blocked := func(rev string) string {
		return "it would delete 4 of 10 projects and pruneLimit allows 3; `caractrl confirm platform@" + rev[:7] +
			"` lets exactly this revision do it; kept: p00, p01, p02, p03"
	}
	w.suffers("platform", api.CondPruneBlocked, "Blocked", blocked(first))
	w.event(api.KindSource, "platform", "PruneBlocked", blocked(first))
	w.claim("platform", "p00", "PruneBlocked")
	w.stay(names...)

	w.Log("another revision was confirmed than the one that stands")
	o.Write("p09.yaml", declared("p09", "web:2"))
	second := o.save("Change something else")
	w.asks("p09", "web:2")
	w.suffers("platform", api.CondPruneBlocked, "Blocked", blocked(second))
	if r := w.ctl("", "confirm", "platform@"+first[:7]); r.Code != 1 {
		t.Errorf("a revision that is over was confirmed: %+v", r)
	}
	w.polled("platform")
	w.stay(names...)

	w.want(w.ctl("", "confirm", "platform@"+second[:7]), 0, "source/platform: the prune of "+second[:7]+" is released\n", "")
	w.gone(names[:4]...)
	w.well("platform", api.CondPruneBlocked)
	w.stay(names[4:]...)
	w.event(api.KindSource, "platform", "PruneConfirmed", "prune at "+second+" released by user/admin")

	for _, name := range names[4:] {
		o.Remove(name + ".yaml")
	}
	o.Write("q.yaml", declared("q", "web:1"))
	o.save("Drop the other six")
	w.untilSource("platform", "is blocked again", func(s *carav1.Source) bool {
		return api.IsTrue(s.GetStatus().GetConditions(), api.CondPruneBlocked)
	})
	w.stay(append(names[4:], "q")...)
}

// The same row: an empty set needs allowEmpty, and prune: false keeps everything.
func TestLawPruneOfEverything(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a", "b"))
	off := w.origin("kept", only("web:1", "c", "d"), "prune: false")
	w.claim("platform", "b", "Applied")
	w.claim("kept", "d", "Applied")
	o.Remove("a.yaml")
	o.Remove("b.yaml")
	o.Write("README.md", "nothing left")
	o.save("Drop everything")
	off.Remove("c.yaml")
	off.save("Drop c")
	w.suffers("platform", api.CondPruneBlocked, "Blocked",
		"the source declares no project at all; set allowEmpty: true if that is meant; kept: a, b")
	w.suffers("kept", api.CondPruneBlocked, "PruneOff", "prune is off; kept: c")
	w.stay("a", "b", "c", "d")
	w.source("platform", "url: "+o.server.RepoURL("platform"), "allowEmpty: true")
	w.gone("a", "b")
	w.source("kept", "url: "+off.server.RepoURL("kept"))
	w.gone("c")
	w.stay("d")
}

// The same row: only what is in the source's stored inventory and still its own.
func TestLawPruneOnlyWhatIsItsOwn(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a", "b", "c"))
	w.claim("platform", "a", "Applied")
	w.apply(declared("mine", "web:1"))
	projects, err := w.Projects()
	w.must(err)
	_, err = projects.ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: "b"})
	w.must(err)
	w.claim("platform", "b", "AdoptionRequired")
	o.Remove("a.yaml")
	o.Remove("b.yaml")
	o.save("Drop a and b")
	w.gone("a")
	w.stay("b", "c", "mine")
	w.owned("b", "user/admin")
}

// A row: first pass after (re)creation.
func TestLawFirstPassNeverPrunes(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a", "b", "c"))
	w.claim("platform", "a", "Applied")
	w.claim("platform", "b", "Applied")
	w.claim("platform", "c", "Applied")
	o.Remove("a.yaml")
	o.Commit("Drop a")
	w.deleteSource("platform")
	w.owned("a", "")
	o.Push()
	w.source("platform", "url: "+o.server.RepoURL("platform"))
	w.owned("b", "source/platform")
	w.polled("platform")
	w.owned("a", "")
	w.stay("a", "b", "c")
	o.Remove("b.yaml")
	o.save("Drop b")
	w.gone("b")
	w.stay("a", "c")
}

// A row: suspend.
func TestLawSuspend(t *testing.T) {
	w := law(t)
	o := w.origin("platform", map[string]string{
		"a.yaml": declared("a", "web:1"), "b.yaml": declared("b", "web:1"),
		"pr.yaml": declared("pr", "web:1", "expireAt: "+soon(6)),
	})
	w.claim("platform", "b", "Applied")
	w.claim("platform", "pr", "Applied")
	w.want(w.ctl("", "suspend", "platform"), 0, "source/platform suspended\n", "")
	w.suffers("platform", api.CondSuspended, "Suspended", "nothing is fetched, applied or pruned; projects still expire; `caractrl resume` ends it")
	o.server.Reset()
	o.Write("a.yaml", declared("a", "web:2"))
	o.Remove("b.yaml")
	o.Commit("Change a, drop b")
	o.Push()
	if r := w.ctl("", "reconcile", "platform"); r.Code != 1 {
		t.Errorf("%+v", r)
	} else {
		w.says("caractrl reconcile", r.Stderr, `source "platform" is suspended: resume it first (caractrl resume platform)`)
	}
	w.gone("pr")
	w.asks("a", "web:1")
	w.stay("a", "b")
	if n, _, _ := o.server.Totals(); n != 0 {
		t.Errorf("%d requests of a suspended source", n)
	}
	w.want(w.ctl("", "resume", "platform"), 0, "source/platform resumed\n", "")
	w.asks("a", "web:2")
	w.gone("b")
	w.well("platform", api.CondSuspended)
	w.stay("a")
	if r := w.ctl("", "reconcile", "platform"); r.Code != 0 || r.Stdout != "source/platform is at "+o.head()[:7]+"\n" {
		t.Errorf("%+v", r)
	}
}

// A row: source deleted.
func TestLawSourceDeleted(t *testing.T) {
	w := law(t)
	w.origin("orphans", only("web:1", "a", "b"))
	deletes := w.origin("deletes", only("web:1", "c", "d"), "onDelete: Delete")
	w.claim("orphans", "b", "Applied")
	w.claim("deletes", "d", "Applied")
	w.claim("orphans", "a", "Applied")
	w.claim("deletes", "c", "Applied")
	w.deleteSource("orphans")
	w.event(api.KindSource, "orphans", "Removed", "the source is gone; 2 projects belong to nobody now")
	w.event(api.KindProject, "a", "Orphaned", "its source orphans was deleted; nobody owns it now")
	w.owned("a", "")
	w.deleteSource("deletes")
	w.gone("c", "d")
	w.stay("a", "b")
	w.event(api.KindProject, "c", "Removed", fmt.Sprintf(
		"its source was deleted: source/deletes, c.yaml at %s (system/reconciler); it had no node", deletes.head()[:7]))
}
