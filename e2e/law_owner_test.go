package e2e

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A row: project claimed by two sources.
func TestLawProjectClaimedByTwoSources(t *testing.T) {
	w := law(t)
	first := w.origin("first", only("web:1", "web", "a"))
	w.claim("first", "web", "Applied")
	born := w.asks("web", "web:1")
	second := w.origin("second", map[string]string{"deploy/web.yaml": declared("web", "web:2"), "b.yaml": declared("b", "web:1")})
	conflict := "project web is owned by source/first (it is declared there in web.yaml:1); declare it in one source only"
	w.claimSays("second", "web", "Conflict", conflict)
	w.suffers("second", api.CondConflict, "Conflict", "web: "+conflict)
	w.event(api.KindProject, "web", "Conflict", "source/second, deploy/web.yaml:1: "+conflict)
	w.asks("web", "web:1")
	w.nothingWritten("second")

	first.Remove("web.yaml")
	first.save("Let go of web")
	given := w.asks("web", "web:2")
	if given.GetMetadata().GetUid() != born.GetMetadata().GetUid() || given.GetMetadata().GetOwner() != "source/second" {
		t.Errorf("it is %v, and was %v: want it handed over, not made anew", given.GetMetadata(), born.GetMetadata())
	}
	w.well("second", api.CondConflict)
	w.quiet("first")
	w.stay("a", "b", "web")

	w.Log("the first source goes while the second still claims what it owns")
	second.Write("a.yaml", declared("a", "web:3"))
	second.save("Claim a too")
	w.claim("second", "a", "Conflict")
	w.deleteSource("first")
	w.asks("a", "web:3")
	w.owned("a", "source/second")
	w.stay("a", "b", "web")
}

// A row: project exists, made by hand.
func TestLawProjectMadeByHand(t *testing.T) {
	w := law(t)
	w.apply(declared("web", "hand:1"))
	born := w.asks("web", "hand:1")
	o := w.origin("platform", only("web:1", "web", "a"))
	w.claimSays("platform", "web", "AdoptionRequired",
		"project web exists and belongs to user/admin; `caractrl adopt web`, set adopt: Always in the source, or delete the project")
	w.suffers("platform", api.CondConflict, "AdoptionRequired",
		"web: project web exists and belongs to user/admin; `caractrl adopt web`, set adopt: Always in the source, or delete the project")
	w.asks("web", "hand:1")
	w.nothingWritten("platform")

	w.want(w.ctl("", "adopt", "web"), 0, "project/web belongs to source/platform, web.yaml:1 at "+o.head()[:7]+" now\n", "")
	now := w.asks("web", "web:1")
	if now.GetMetadata().GetUid() != born.GetMetadata().GetUid() || now.GetMetadata().GetOwner() != "source/platform" {
		t.Errorf("adopted: %v, before %v", now.GetMetadata(), born.GetMetadata())
	}
	w.well("platform", api.CondConflict)
	w.claim("platform", "web", "Applied")

	w.Log("released again, it is a person's, and git waits")
	w.want(w.ctl("", "release", "web"), 0, "project/web belongs to user/admin now\n", "")
	w.claim("platform", "web", "AdoptionRequired")
	w.want(w.ctl(declared("web", "hand:2"), "apply", "-f", "-"), 0, "project/web configured\n", "")
	w.polled("platform")
	w.asks("web", "hand:2")

	w.Log("adopt: Always takes it without a word")
	w.source("platform", "url: "+o.server.RepoURL("platform"), "adopt: Always")
	w.asks("web", "web:1")
	w.owned("web", "source/platform")

	w.Log("adopt: Never leaves even orphans")
	w.deleteSource("platform")
	w.owned("web", "")
	w.source("platform", "url: "+o.server.RepoURL("platform"), "adopt: Never")
	w.claimSays("platform", "web", "AdoptionRequired",
		"project web exists and nobody owns it; `caractrl adopt web`, set adopt: IfUnowned in the source, or delete the project")
	w.owned("web", "")
	w.source("platform", "url: "+o.server.RepoURL("platform"))
	w.owned("web", "source/platform")
	w.owned("a", "source/platform")
}

// A row: manual change.
func TestLawManualChange(t *testing.T) {
	w := law(t)
	o := w.origin("platform", map[string]string{"deploy/web.yaml": declared("web", "web:1"), "a.yaml": declared("a", "web:1")})
	w.claim("platform", "web", "Applied")
	from := "error: project \"web\" belongs to source/platform, deploy/web.yaml at " + o.head()[:7] + ": change it in git, or use --override --reason WHY"
	w.denied(w.ctl("", "delete", "project", "web"), from)
	if r := w.ctl(declared("web", "hand:1"), "apply", "-f", "-"); r.Code != 1 {
		t.Errorf("%+v", r)
	} else {
		w.says("caractrl apply", r.Stderr, "source/platform, deploy/web.yaml at "+o.head()[:7])
	}
	w.asks("web", "web:1")

	w.Log("until it is cleared")
	w.want(w.ctl(declared("web", "hand:1"), "apply", "-f", "-", "--override", "--reason", "incident 7"), 0, "project/web configured\n", "")
	w.claimSays("platform", "web", "Overridden",
		`overridden by user/admin until it is cleared: incident 7; git would change spec.services[web].image "hand:1" -> "web:1"`)
	w.event(api.KindProject, "web", "Overridden", "user/admin overrides git (Spec) until it is cleared: incident 7")
	o.Write("deploy/web.yaml", declared("web", "web:2"))
	o.save("Git goes on")
	w.claimSays("platform", "web", "Overridden",
		`overridden by user/admin until it is cleared: incident 7; git would change spec.services[web].image "hand:1" -> "web:2"`)
	w.crash()
	w.start()
	w.polled("platform")
	w.asks("web", "hand:1")
	w.says("overrides", w.ctl("", "get", "overrides").Stdout, "web", "Spec", "user/admin", "incident 7")
	w.says("the list", w.ctl("", "get", "projects").Stdout, "Overridden")
	if r := w.ctl("", "override", "clear", "web"); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	w.asks("web", "web:2")
	w.event(api.KindProject, "web", "OverrideUndone", `the override ended and git's version was applied: spec.services[web].image "hand:1" -> "web:2"`)

	w.Log("for a while")
	w.want(w.ctl(declared("web", "hand:2"), "apply", "-f", "-", "--override", "--reason", "look", "--for", "4s"), 0, "project/web configured\n", "")
	w.asks("web", "hand:2")
	w.polled("platform")
	w.asks("web", "web:2")

	w.Log("until git's next change")
	w.want(w.ctl(declared("web", "hand:3"), "apply", "-f", "-", "--override", "--reason", "look", "--until-next-change"), 0, "project/web configured\n", "")
	o.Write("a.yaml", declared("a", "web:2"))
	o.save("Another project changes")
	w.asks("a", "web:2")
	w.claimSays("platform", "web", "Overridden",
		`overridden by user/admin until git's next change: look; git would change spec.services[web].image "hand:3" -> "web:2"`)
	w.asks("web", "hand:3")
	o.Write("deploy/web.yaml", declared("web", "web:4"))
	o.save("This one changes")
	w.asks("web", "web:4")

	w.Log("a held-down delete stays deleted")
	if r := w.ctl("", "delete", "project", "web", "--override", "--reason", "too loud", "--until-next-change"); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	w.gone("web")
	w.claimSays("platform", "web", "Overridden", "held down by user/admin until git's next change: too loud; git would create it")
	w.nothingWritten("platform")
	w.stay("a")
	w.crash()
	w.start()
	w.polled("platform")
	w.stay("a")
	o.Write("deploy/web.yaml", declared("web", "web:5"))
	o.save("It changes")
	w.asks("web", "web:5")
	w.claim("platform", "web", "Applied")

	if r := w.ctl("", "delete", "project", "web", "--override", "--reason", "a nap", "--for", "3s"); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	w.gone("web")
	w.asks("web", "web:5")
}

// Rows: drift, and the same apply ten times within a minute.
func TestLawDriftAndTheLoopBreaker(t *testing.T) {
	w := law(t)
	o := w.origin("platform", map[string]string{"web.yaml": declared("web", "web:1"), "a.yaml": declared("a", "web:1")})
	w.claim("platform", "web", "Applied")
	w.crash()
	w.tamper("web", func(p *carav1.Project) {
		p.Spec.Services[0].Image = "evil:1"
		p.Spec.Services[0].Env = append(p.Spec.Services[0].Env, &carav1.EnvVar{Name: "EVIL", Value: "yes"})
	})
	w.start()
	w.asks("web", "web:1")
	w.says("the events", w.ctl("", "get", "events").Stdout, "DriftCorrected", "put back what git says: ",
		`spec.services[web].image "evil:1" -> "web:1"`, `spec.services[web].env[EVIL]`)

	projects, err := w.Projects()
	w.must(err)
	began := time.Now()
	for i := range 10 {
		w.asks("web", "web:1")
		w.want(w.ctl(declared("web", "hand:1"), "apply", "-f", "-", "--override", "--reason", "fight"), 0, "project/web configured\n", "")
		_, err := projects.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Clear: true})
		w.must(err)
		if time.Since(began) > 50*time.Second {
			t.Skipf("the machine is too slow for ten changes within a minute: %d", i)
		}
	}
	text := `the same manifest was applied 10 times within a minute and something keeps changing the project back: ` +
		`spec.services[web].image "hand:1" -> "web:1"; find out who changes it, then change the manifest`
	w.claimSays("platform", "web", "Stalled", text)
	w.suffers("platform", api.CondStalled, "Fight", "web: "+text)
	w.event(api.KindProject, "web", "Stalled", "source/platform, web.yaml:1: "+text)
	w.asks("web", "hand:1")
	o.Write("a.yaml", declared("a", "web:2"))
	o.save("Others go on")
	w.asks("a", "web:2")
	w.nothingWritten("platform")
	o.Write("web.yaml", declared("web", "web:2"))
	o.save("Change the manifest")
	w.asks("web", "web:2")
	w.well("platform", api.CondStalled)
}

// caractrl history shows the last specs with who wrote them, and rollback goes back to one: an override with a reason.
func TestLawHistoryAndRollback(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "web", "a"))
	w.claim("platform", "web", "Applied")
	first := o.head()
	o.Write("web.yaml", declared("web", "web:2"))
	second := o.save("The new version")
	w.asks("web", "web:2")
	if origin := w.project("web").GetMetadata().GetOrigin(); origin.GetRevision() != second || origin.GetSubject() != "The new version" || origin.GetAuthor() == "" ||
		origin.GetCommitTime() == nil {
		t.Errorf("origin %v", origin)
	}
	w.says("caractrl history", w.ctl("", "history", "web").Stdout, first[:7], second[:7], "source/platform")
	w.want(w.ctl("", "rollback", "web", "--to", first[:7], "--reason", "the new version leaks", "--until-next-change"), 0,
		"project/web rolled back to "+first[:7]+"\n",
		"user/admin overrides git (Spec) until the next change in git: the new version leaks; caractrl override clear web ends it\n")
	w.asks("web", "web:1")
	claim := w.claim("platform", "web", "Overridden").GetStatus().GetMessage()
	w.says("the claim", claim, "overridden by user/admin until git's next change: ", "the new version leaks",
		`git would change spec.services[web].image "web:1" -> "web:2"`)
	w.says("caractrl history", w.ctl("", "history", "web").Stdout, "user/admin", "the new version leaks")
	w.crash()
	w.start()
	w.polled("platform")
	w.asks("web", "web:1")
	o.Write("web.yaml", declared("web", "web:3"))
	o.save("Mend it")
	w.asks("web", "web:3")
	w.claim("platform", "web", "Applied")
	w.stay("a", "web")
}
