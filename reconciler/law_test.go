package reconciler

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testlaw"
	"github.com/caravanserai/cara/plan"
)

// TestLaw has a test with the same name for each row of plan.Law, against the real server: what is done, and what users can
// read about it.
func TestLaw(t *testing.T) {
	tests := map[string]func(*testing.T, *liveServer){
		"repository unreachable, auth refused, ref missing, path missing, empty repository, directory unmounted": lawUnreadable,
		"one bad file among many":                  lawBadFile,
		"a path that is not read is not gone":      lawNotRead,
		"the server refuses one project":           lawRefused,
		"same project twice in one source":         lawTwice,
		"project claimed by two sources":           lawTwoSources,
		"project exists, made by hand":             lawMadeByHand,
		"prune":                                    lawPrune,
		"drift (spec changed behind git's back)":   lawDrift,
		"manual change":                            lawManualChange,
		"expireAt in the past at first sight":      lawExpiredAtFirstSight,
		"expires while still in git":               lawExpiresInGit,
		"caractrl extend pr-42 24h":                lawExtend,
		"renamed or moved file, same project":      lawMovedFile,
		"renamed project":                          lawRenamedProject,
		"nothing changed":                          lawNothingChanged,
		"many commits while busy":                  lawManyCommits,
		"force-push, history rewrite":              lawForcePush,
		"half-written file in a watched directory": lawHalfWritten,
		"same apply ten times within a minute":     lawLoopBreaker,
		"suspend":                                  lawSuspend,
		"source deleted":                           lawSourceDeleted,
		"first pass after (re)creation":            lawFirstPass,
	}
	for _, rule := range plan.Law() {
		if rule.Test != "" {
			continue
		}
		test := tests[rule.Situation]
		if test == nil {
			t.Errorf("the row %q has no test", rule.Situation)
			continue
		}
		delete(tests, rule.Situation)
		t.Run(rule.Situation, func(t *testing.T) { runReal(t, test) })
	}
	for name := range tests {
		t.Errorf("there is no row %q", name)
	}
}

func lawUnreadable(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"))
	r.push("rev-2", testlaw.Claim("web", "a:1"))
	r.push("rev-3", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"))
	for _, reason := range []string{"Unreachable", "Unauthorized", "RefNotFound", "PathNotFound", "EmptyRepository", "DirectoryMissing"} {
		r.fails("platform", reason)
		r.behindItsBack(testlaw.Manifest("web", "evil:1"))
		r.wantProjects("old a:1 source/platform", "web a:1 source/platform") // drift is healed, the last good snapshot stands
		r.wantCondition("platform", api.CondReady, api.StatusFalse, api.CondFetchFailed+": it is not there")
		r.wantCondition("platform", api.CondFetchFailed, api.StatusTrue, reason)
		r.publish("platform", "rev-4", nil, testlaw.Claim("web", "a:1")) // as if the snapshot had lost it in that very moment
		r.settle()
		r.wantProjects("old a:1 source/platform", "web a:1 source/platform")
		r.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "cannot be read now ("+reason+"); kept: old")
		r.push("rev-3", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"))
	}
	r.fails("platform", "")
	r.wantCondition("platform", api.CondReady, api.StatusTrue, "2 projects as at rev-3")
}

func badFile(s *carav1.Snapshot) {
	s.Complete, s.ErrorCount = false, 1
	s.FileErrors = []*carav1.FileProblem{{File: "bad.yaml", Line: 3, Column: 1, Message: "did not find expected key"}}
}

func lawBadFile(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("bad", "a:1"), testlaw.Claim("good", "a:1"), testlaw.Claim("old", "a:1"))
	r.publish("platform", "rev-2", badFile, testlaw.Claim("bad", "a:1", testlaw.Held("bad.yaml:3:1: did not find expected key")), testlaw.Claim("good", "a:2"))
	r.settle()
	r.wantProjects("bad a:1 source/platform", "good a:2 source/platform", "old a:1 source/platform")
	r.wantState("platform/bad", api.ClaimHeld, "bad.yaml:3:1")
	r.wantState("platform/old", api.ClaimPruneBlocked, "bad.yaml:3")
	r.wantCondition("platform", api.CondReady, api.StatusFalse, "bad.yaml:3: did not find expected key")
	r.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "1 error in the files at rev-2")
	r.wantEvent(api.KindProject, "bad", api.ClaimHeld, "bad.yaml:3:1: did not find expected key")
	r.wantEvent(api.KindSource, "platform", api.CondPruneBlocked, "kept: old")
	r.wantQuiet()
	r.push("rev-3", testlaw.Claim("bad", "a:3"), testlaw.Claim("good", "a:2"))
	r.wantProjects("bad a:3 source/platform", "good a:2 source/platform")
	r.wantCondition("platform", api.CondReady, api.StatusTrue, "")
	r.wantCondition("platform", api.CondPruneBlocked, "", "")
}

func lawNotRead(t *testing.T, r *liveServer) {
	const why = "apps is a symbolic link, and links are not followed"
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"))
	r.publish("platform", "rev-2", nil, testlaw.Claim("web", "a:1", testlaw.Held(why)), testlaw.Claim("old", "a:1"))
	r.settle()
	r.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, why)
	r.wantCondition("platform", api.CondReady, api.StatusFalse, why)
	r.wantState("platform/web", api.ClaimHeld, why)
	r.publish("platform", "rev-3", nil, testlaw.Claim("web", "a:1", testlaw.Held(why)))
	r.settle()
	r.wantProjects("old a:1 source/platform", "web a:1 source/platform")
	r.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, why+"; remove the path, or put it back; kept: old")
	r.wantQuiet()
	r.push("rev-4", testlaw.Claim("other", "a:1")) // the link is removed
	r.wantProjects("other a:1 source/platform")
	r.wantCondition("platform", api.CondPruneBlocked, api.StatusFalse, "")
}

func lawRefused(t *testing.T, r *liveServer) {
	host := func(p *carav1.Project) *carav1.Project {
		p.Spec.Ingress = []*carav1.Ingress{{Name: "web", Host: "shop.example.org", Target: &carav1.IngressTarget{Service: "web", Port: 80}}}
		return p
	}
	r.must(r.byHand(host(testlaw.Manifest("shop", "a:1")), nil))
	bad := testlaw.Claim("bad", "a:1", func(c *carav1.Claim) { host(c.Spec.Project) })
	r.push("rev-1", bad, testlaw.Claim("good", "a:1"))
	r.wantProjects("good a:1 source/platform", "shop a:1 user/ada")
	r.wantState("platform/bad", api.ClaimRefused, `host "shop.example.org" belongs to project "shop"`)
	r.wantState("platform/good", api.ClaimApplied, "")
	r.wantCondition("platform", api.CondReady, api.StatusFalse, "Refused: bad")
	r.wantEvent(api.KindProject, "bad", api.ClaimRefused, "source/platform, bad.yaml:1")
	_, err := r.projects.DeleteProject(r.t.Context(), &carav1.DeleteProjectRequest{Name: "shop"})
	r.must(err)
	r.pass(6 * time.Minute)
	r.wantProjects("bad a:1 source/platform", "good a:1 source/platform")
	r.wantCondition("platform", api.CondReady, api.StatusTrue, "")
}

func lawTwice(t *testing.T, r *liveServer) {
	const both = "declared twice: a.yaml:1 and b.yaml:1"
	r.push("rev-1", testlaw.Claim("web", "a:1"))
	r.publish("platform", "rev-2", badFile, testlaw.Claim("web", "a:2", testlaw.Held(both)), testlaw.Claim("new", "a:1", testlaw.Held(both)))
	r.settle()
	r.wantState("platform/web", api.ClaimHeld, both)
	r.wantState("platform/new", api.ClaimHeld, both)
	r.wantProjects("web a:1 source/platform")
	r.wantEvent(api.KindProject, "web", api.ClaimHeld, both)
}

func lawTwoSources(t *testing.T, r *liveServer) {
	r.makeSource("team")
	mine := func(name, image string) *carav1.Claim {
		return testlaw.Claim(name, image, testlaw.From("team", "", "team/"+name+".yaml"))
	}
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "a:1"))
	r.publish("team", "t-1", nil, mine("web", "b:1"))
	r.settle()
	r.wantProjects("db a:1 source/platform", "web a:1 source/platform")
	r.wantState("team/web", api.ClaimConflict, "owned by source/platform (it is declared there in web.yaml:1)")
	r.wantCondition("team", api.CondConflict, api.StatusTrue, "source/platform")
	r.wantEvent(api.KindProject, "web", api.ClaimConflict, "source/team, team/web.yaml:1")
	uid := r.project("web").Metadata.Uid
	r.push("rev-2", testlaw.Claim("db", "a:1"))
	r.wantProjects("db a:1 source/platform", "web b:1 source/team")
	if got := r.project("web").Metadata.Uid; got != uid {
		t.Error("it was deleted and created instead of handed over")
	}
	r.wantEvent(api.KindProject, "web", "Adopted", "now belongs to source/team, team/web.yaml at t-1, before to source/platform")
	r.wantCondition("team", api.CondConflict, "", "")
	r.wantQuiet()
}

func lawMadeByHand(t *testing.T, r *liveServer) {
	r.must(r.byHand(testlaw.Manifest("web", "hand:1"), nil))
	r.push("rev-1", testlaw.Claim("web", "a:1"))
	r.wantProjects("web hand:1 user/ada")
	r.wantState("platform/web", api.ClaimAdoptionRequired, "belongs to user/ada")
	r.wantCondition("platform", api.CondConflict, api.StatusTrue, api.ClaimAdoptionRequired)
	r.wantEvent(api.KindProject, "web", api.ClaimAdoptionRequired, "user/ada")
	_, err := r.projects.AdoptProject(t.Context(), &carav1.AdoptProjectRequest{Name: "web"})
	r.must(err)
	r.settle()
	r.wantProjects("web a:1 source/platform")
	r.wantState("platform/web", api.ClaimApplied, "")
	if o := r.project("web").Metadata.Origin; o.GetAuthor() != "Ada" || o.GetSubject() != "make it so" || o.GetRevision() != "rev-1" || o.GetFile() != "web.yaml" {
		t.Errorf("origin %v", o)
	}
	_, err = r.projects.ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: "web"})
	r.must(err)
	r.settle()
	r.wantProjects("web a:1 user/ada")
	r.wantState("platform/web", api.ClaimAdoptionRequired, "caractrl adopt web")
	r.makeSource("platform", func(s *carav1.SourceSpec) { s.Adopt = api.AdoptAlways })
	r.wantProjects("web a:1 source/platform")
	r.wantQuiet()
}

func lawPrune(t *testing.T, r *liveServer) {
	var all []*carav1.Claim
	for i := range 10 {
		all = append(all, testlaw.Claim(fmt.Sprintf("p%d", i), "a:1"))
	}
	r.push("1111111aaaa", all...)
	r.push("2222222aaaa", all[:9]...)
	if r.project("p9") != nil {
		t.Fatal("what left the source was not pruned")
	}
	r.wantEvent(api.KindProject, "p9", "Removed", "its manifest left the source")
	r.push("3333333aaaa", all[:1]...)
	if r.project("p1") == nil {
		t.Fatal("8 of 9 were pruned")
	}
	r.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "8 of 9 projects and pruneLimit allows 3; `caractrl confirm platform@3333333`")
	r.wantState("platform/p1", api.ClaimPruneBlocked, "pruneLimit")
	r.wantEvent(api.KindSource, "platform", api.CondPruneBlocked, "kept: p1, p2")
	r.wantQuiet()
	_, err := r.sources.ConfirmSource(t.Context(), &carav1.ConfirmSourceRequest{Name: "platform", Revision: "3333333"})
	r.must(err)
	r.settle()
	r.wantProjects("p0 a:1 source/platform")
	r.wantEvent(api.KindSource, "platform", "PruneConfirmed", "3333333aaaa released by user/ada")
	r.push("4444444aaaa")
	r.wantProjects("p0 a:1 source/platform")
	r.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "allowEmpty")
	r.makeSource("platform", func(s *carav1.SourceSpec) { s.AllowEmpty = true })
	r.wantProjects()
	r.wantCondition("platform", api.CondPruneBlocked, "", "")
}

func lawDrift(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("web", "a:1"))
	r.behindItsBack(testlaw.Manifest("web", "evil:1"))
	r.wantProjects("web a:1 source/platform")
	r.wantEvent(api.KindProject, "web", "DriftCorrected", `spec.services[web].image "evil:1" -> "a:1"`)
	r.wantQuiet()
}

func lawManualChange(t *testing.T, r *liveServer) {
	r.push("1a2b3c4d", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "a:1"))
	err := r.byHand(testlaw.Manifest("web", "hand:1"), nil)
	if err == nil || !strings.Contains(err.Error(), "source/platform, web.yaml at 1a2b3c4") || !strings.Contains(err.Error(), "--override --reason WHY") {
		t.Errorf("the refusal says %v", err)
	}
	r.must(r.byHand(testlaw.Manifest("web", "hand:1"), &carav1.OverrideTerms{Reason: "incident 7", For: durationpb.New(2 * time.Hour)}))
	r.push("rev-2", testlaw.Claim("web", "a:2"), testlaw.Claim("db", "a:1"))
	r.wantProjects("db a:1 source/platform", "web hand:1 source/platform")
	r.wantState("platform/web", api.ClaimOverridden, `incident 7; git would change spec.services[web].image "hand:1" -> "a:2"`)
	r.wantEvent(api.KindProject, "web", "Overridden", "incident 7")
	r.restart()
	r.wantProjects("db a:1 source/platform", "web hand:1 source/platform")
	r.pass(2 * time.Hour)
	r.wantProjects("db a:1 source/platform", "web a:2 source/platform")
	r.wantEvent(api.KindProject, "web", "OverrideEnded", "its time is over")
	r.wantEvent(api.KindProject, "web", "OverrideUndone", `"hand:1" -> "a:2"`)

	r.must(r.byHand(testlaw.Manifest("web", "hand:2"), &carav1.OverrideTerms{Reason: "until they fix it", UntilNextChange: true}))
	r.wantProjects("db a:1 source/platform", "web hand:2 source/platform")
	r.push("rev-3", testlaw.Claim("web", "a:3"), testlaw.Claim("db", "a:1"))
	r.wantProjects("db a:1 source/platform", "web a:3 source/platform")
	r.wantEvent(api.KindProject, "web", "OverrideEnded", "git has changed the project")

	_, err = r.projects.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "db", Override: &carav1.OverrideTerms{Reason: "too loud", For: durationpb.New(time.Hour)}})
	r.must(err)
	r.pass(30 * time.Minute)
	r.wantProjects("web a:3 source/platform")
	r.wantState("platform/db", api.ClaimOverridden, "held down by user/ada")
	r.pass(31 * time.Minute)
	r.wantProjects("db a:1 source/platform", "web a:3 source/platform")
	r.wantEvent(api.KindProject, "db", "OverrideEnded", "too loud")
	r.wantQuiet()
}

func lawExpiredAtFirstSight(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("pr-1", "a:1", testlaw.Expiring(r.now().Add(-time.Minute))))
	r.wantProjects()
	r.wantState("platform/pr-1", api.ClaimExpired, "has passed")
	r.wantEvent(api.KindProject, "pr-1", api.ClaimExpired, "source/platform, pr-1.yaml:1")
	r.wantQuiet()
}

func lawExpiresInGit(t *testing.T, r *liveServer) {
	at := r.now().Add(time.Hour).Truncate(time.Second)
	r.push("rev-1", testlaw.Claim("pr-1", "a:1", testlaw.Expiring(at)))
	r.pass(at.Sub(r.now()) - time.Second)
	r.wantProjects("pr-1 a:1 source/platform")
	r.wantEvent(api.KindProject, "pr-1", "Expiring", at.UTC().Format(time.RFC3339))
	if !api.IsTrue(r.project("pr-1").Status.Conditions, api.CondExpiring) {
		t.Error("it does not say that it is expiring")
	}
	r.pass(2 * time.Second)
	r.wantProjects()
	r.wantState("platform/pr-1", api.ClaimExpired, "")
	r.restart()
	r.push("rev-2", testlaw.Claim("pr-1", "a:2", testlaw.Expiring(at)))
	r.wantProjects()
	r.wantQuiet()
	r.push("rev-3", testlaw.Claim("pr-1", "a:2", testlaw.Expiring(r.now().Add(time.Hour))))
	r.wantProjects("pr-1 a:2 source/platform")
	r.pass(2 * time.Hour)
	r.wantProjects()
	r.push("rev-4")
	r.push("rev-5", testlaw.Claim("pr-1", "a:2", testlaw.Expiring(r.now().Add(time.Minute))))
	r.wantProjects("pr-1 a:2 source/platform")
}

func lawExtend(t *testing.T, r *liveServer) {
	at := r.now().Add(time.Hour).Truncate(time.Second)
	r.push("rev-1", testlaw.Claim("pr-42", "a:1", testlaw.Expiring(at)))
	r.pass(50 * time.Minute)
	_, err := r.projects.ExtendProject(t.Context(), &carav1.ExtendProjectRequest{Name: "pr-42", By: durationpb.New(24 * time.Hour), Reason: "demo"})
	r.must(err)
	r.settle()
	st := r.project("pr-42").Status
	if api.IsTrue(st.Conditions, api.CondExpiring) || !api.IsTrue(st.Conditions, api.CondOverridden) || !st.ExpireAt.AsTime().Equal(at.Add(24*time.Hour)) {
		t.Errorf("after the extension: %v", st)
	}
	r.wantEvent(api.KindProject, "pr-42", "Extended", at.Add(24*time.Hour).UTC().Format(time.RFC3339))
	r.push("rev-2", testlaw.Claim("pr-42", "a:2", testlaw.Expiring(at))) // the rest is git's all the while
	r.restart()
	r.pass(12 * time.Hour)
	r.wantProjects("pr-42 a:2 source/platform")
	r.pass(at.Add(24*time.Hour).Sub(r.now()) - time.Second)
	r.wantProjects("pr-42 a:2 source/platform")
	r.pass(2 * time.Second)
	r.wantProjects()
	r.wantEvent(api.KindProject, "pr-42", "OverrideEnded", "demo")
	r.wantState("platform/pr-42", api.ClaimExpired, "")
}

func lawMovedFile(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("web", "a:1"))
	before := r.project("web").Metadata.ResourceVersion
	r.push("rev-2", testlaw.Claim("web", "a:1", func(c *carav1.Claim) { c.Spec.File, c.Spec.Line = "new/place.yaml", 7 }))
	if after := r.project("web").Metadata; after.ResourceVersion != before || after.Origin.Revision != "rev-1" {
		t.Errorf("the project was written: %v", after)
	}
	r.wantState("platform/web", api.ClaimApplied, "")
	if got := r.claim("platform/web").Spec.File; got != "new/place.yaml" {
		t.Errorf("the source's status says %s", got)
	}
}

func lawRenamedProject(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("alpha", "a:1"), testlaw.Claim("stays", "a:1"))
	var order []string
	r.watchProjects(&order)
	r.push("rev-2", testlaw.Claim("zeta", "a:1"), testlaw.Claim("stays", "a:1"))
	if got := strings.Join(order, " "); got != "+zeta -alpha" {
		t.Errorf("order %s", got)
	}
	r.wantProjects("stays a:1 source/platform", "zeta a:1 source/platform")
}

func lawNothingChanged(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"))
	r.wantQuiet()
	before := r.project("web").Metadata.ResourceVersion
	r.push("rev-2", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"))
	if m := r.project("web").Metadata; m.ResourceVersion != before || m.Origin.Revision != "rev-1" {
		t.Errorf("another commit with the same manifests wrote %v", m)
	}
	r.wantCondition("platform", api.CondReady, api.StatusTrue, "2 projects as at rev-2")
	r.restart()
	r.wantQuiet()
}

func lawManyCommits(t *testing.T, r *liveServer) {
	for i := range 50 {
		c := testlaw.Claim("web", fmt.Sprintf("a:%d", i))
		if i%7 == 3 {
			c = testlaw.Claim("web", "not an image") // a commit that the server refuses blocks none after it
		}
		r.publish("platform", fmt.Sprintf("rev-%02d", i), nil, c)
		r.pass(time.Millisecond)
	}
	r.settle()
	r.wantProjects("web a:49 source/platform")
	if st := r.source("platform").Status; st.AppliedRevision != "rev-49" || st.AttemptedRevision != "rev-49" {
		t.Errorf("attempted %s, applied %s", st.AttemptedRevision, st.AppliedRevision)
	}
}

func lawForcePush(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"), testlaw.Claim("mq", "c:1"), testlaw.Claim("lb", "d:1"))
	r.push("rev-2", testlaw.Claim("web", "a:2"), testlaw.Claim("db", "b:1"), testlaw.Claim("mq", "c:1"), testlaw.Claim("lb", "d:1"), testlaw.Claim("x", "x:1"))
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"), testlaw.Claim("mq", "c:1"), testlaw.Claim("lb", "d:1"))
	r.wantProjects("db b:1 source/platform", "lb d:1 source/platform", "mq c:1 source/platform", "web a:1 source/platform")
	r.push("unrelated", testlaw.Claim("web", "a:9"), testlaw.Claim("db", "b:1"), testlaw.Claim("mq", "c:1"), testlaw.Claim("lb", "d:1"))
	r.wantProjects("db b:1 source/platform", "lb d:1 source/platform", "mq c:1 source/platform", "web a:9 source/platform")
	r.wantCondition("platform", api.CondReady, api.StatusTrue, "4 projects as at unrelat")
}

// lawHalfWritten: a snapshot of a half-written file is incomplete, whatever is missing from it.
func lawHalfWritten(t *testing.T, r *liveServer) {
	r.push("hash-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"))
	r.publish("platform", "hash-2", func(s *carav1.Snapshot) { s.Complete = false }, testlaw.Claim("web", "a:1"))
	r.settle()
	r.wantProjects("db b:1 source/platform", "web a:1 source/platform")
	r.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "did not load whole")
	r.push("hash-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"))
	r.wantCondition("platform", api.CondReady, api.StatusTrue, "2 projects")
}

func lawLoopBreaker(t *testing.T, r *liveServer) {
	const diff = `spec.services[web].image "evil:1" -> "a:1"`
	r.push("rev-1", testlaw.Claim("web", "a:1"))
	for range 15 {
		r.behindItsBack(testlaw.Manifest("web", "evil:1"))
	}
	r.wantProjects("web evil:1 source/platform")
	r.wantState("platform/web", api.ClaimStalled, diff)
	r.wantCondition("platform", api.CondStalled, api.StatusTrue, diff)
	r.wantEvent(api.KindProject, "web", api.ClaimStalled, diff)
	r.wantEvent(api.KindSource, "platform", api.CondStalled, diff)
	r.wantQuiet()
	r.restart()
	r.wantState("platform/web", api.ClaimStalled, diff)
	r.push("rev-2", testlaw.Claim("web", "a:2"))
	r.wantProjects("web a:2 source/platform")
	r.wantCondition("platform", api.CondStalled, "", "")
}

func lawSuspend(t *testing.T, r *liveServer) {
	at := r.now().Add(time.Hour)
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"), testlaw.Claim("pr-1", "a:1", testlaw.Expiring(at)))
	_, err := r.sources.SuspendSource(t.Context(), &carav1.GetRequest{Name: "platform"})
	r.must(err)
	r.push("rev-2", testlaw.Claim("web", "a:2"), testlaw.Claim("pr-1", "a:1", testlaw.Expiring(at)))
	r.behindItsBack(testlaw.Manifest("web", "hand:1"))
	r.wantProjects("old a:1 source/platform", "pr-1 a:1 source/platform", "web hand:1 source/platform")
	r.wantCondition("platform", api.CondSuspended, api.StatusTrue, "`caractrl resume`")
	r.wantEvent(api.KindSource, "platform", "Suspended", "user/ada")
	_, err = r.sources.ReconcileSource(t.Context(), &carav1.GetRequest{Name: "platform"})
	if err == nil || !strings.Contains(err.Error(), "suspended: resume it first") {
		t.Errorf("reconcile of a suspended source: %v", err)
	}
	r.pass(2 * time.Hour)
	r.wantProjects("old a:1 source/platform", "web hand:1 source/platform") // expiry fires all the same
	_, err = r.sources.ResumeSource(t.Context(), &carav1.GetRequest{Name: "platform"})
	r.must(err)
	r.settle()
	r.wantProjects("web a:2 source/platform")
	r.wantCondition("platform", api.CondSuspended, "", "")
}

func lawSourceDeleted(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"))
	remove := func() {
		t.Helper()
		_, err := r.sources.DeleteSource(t.Context(), &carav1.DeleteRequest{Name: "platform"})
		r.must(err)
		r.settle()
		if r.source("platform") != nil {
			t.Error("the source is still there")
		}
	}
	remove()
	r.wantProjects("db b:1 nobody", "web a:1 nobody")
	r.wantEvent(api.KindSource, "platform", "Removed", "2 projects belong to nobody now")
	r.wantEvent(api.KindProject, "web", "Orphaned", "platform was deleted")
	r.makeSource("platform", func(s *carav1.SourceSpec) { s.OnDelete = api.OnDeleteDelete })
	r.push("rev-2", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"))
	r.wantProjects("db b:1 source/platform", "web a:1 source/platform")
	remove()
	r.wantProjects()
	r.wantEvent(api.KindProject, "web", "Removed", "its source was deleted")
}

func lawFirstPass(t *testing.T, r *liveServer) {
	r.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"))
	_, err := r.sources.DeleteSource(context.WithoutCancel(t.Context()), &carav1.DeleteRequest{Name: "platform"})
	r.must(err)
	r.settle()
	r.makeSource("platform")
	r.push("rev-2", testlaw.Claim("web", "a:2"))
	r.wantProjects("old a:1 nobody", "web a:2 source/platform")
	r.pass(time.Hour)
	r.wantProjects("old a:1 nobody", "web a:2 source/platform")
}
