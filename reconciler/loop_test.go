package reconciler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

func TestPushIsAppliedAndThenQuiet(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.wantCondition("platform", api.CondReady, api.StatusFalse, "NotRead")
		c.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "b:1"))
		c.wantProjects("db b:1 source/platform", "web a:1 source/platform")
		c.wantStates("platform/db Applied", "platform/web Applied")
		c.wantCondition("platform", api.CondReady, api.StatusTrue, "2 projects as at rev-1")
		st := c.source("platform").Status
		if st.AttemptedRevision != "rev-1" || st.AppliedRevision != "rev-1" || st.Projects != 2 || len(st.Runs) != 1 || st.Runs[0].Created != 2 {
			t.Errorf("status %v", st)
		}
		if o := c.project("web").Metadata.Origin; o.File != "web.yaml" || o.Revision != "rev-1" || o.Source != "platform" {
			t.Errorf("origin %v", o)
		}
		c.wantQuiet()
		c.stop()
		c.start()
		c.wantQuiet()
	})
}

func TestNewestWins(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		for i := range 50 {
			c.publish(t, "platform", fmt.Sprintf("rev-%02d", i), testlaw.Claim("web", fmt.Sprintf("a:%d", i)))
		}
		c.settle()
		c.wantProjects("web a:49 source/platform")
		if got := c.source("platform").Status.AppliedRevision; got != "rev-49" {
			t.Errorf("applied revision %s", got)
		}
	})
}

func TestDriftIsPutBackWithAnEvent(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		c.told()
		c.change("web", func(p *carav1.Project) { p.Spec.Services[0].Image = "evil:1" })
		c.wantProjects("web a:1 source/platform")
		if d := cmp.Diff([]string{"DriftCorrected web"}, c.told()); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		c.wantQuiet()
	})
}

func TestLoopBreaker(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		for range 15 {
			c.change("web", func(p *carav1.Project) { p.Spec.Services[0].Image = "evil:1" })
		}
		c.wantProjects("web evil:1 source/platform")
		c.wantStates("platform/web Stalled")
		c.wantCondition("platform", api.CondStalled, api.StatusTrue, `spec.services[web].image "evil:1" -> "a:1"`)
		c.wantQuiet()
		c.stop()
		c.start()
		c.wantStates("platform/web Stalled")
		c.push("rev-2", testlaw.Claim("web", "a:2"))
		c.wantProjects("web a:2 source/platform")
		c.wantCondition("platform", api.CondStalled, api.StatusFalse, "")
	})
}

func TestOneRefusedProjectDoesNotHoldUpTheOthers(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.refused["bad"] = "host web.example.org is claimed by project shop"
		c.push("rev-1", testlaw.Claim("bad", "a:1"), testlaw.Claim("good", "a:1"))
		c.wantProjects("good a:1 source/platform")
		c.wantStates("platform/bad Refused", "platform/good Applied")
		c.wantCondition("platform", api.CondReady, api.StatusFalse, "Refused: bad: host web.example.org is claimed by project shop")
		if st := c.source("platform").Status; st.AppliedRevision != "" || st.AttemptedRevision != "rev-1" {
			t.Errorf("attempted %q applied %q", st.AttemptedRevision, st.AppliedRevision)
		}
		c.settle()
		runs := len(c.source("platform").Status.Runs)
		c.TakeCalls()
		c.pass(time.Hour)
		if n := c.TakeCalls(); n["Apply"] == 0 || n["Apply"] > 20 || len(n) != 1 {
			t.Errorf("calls in an hour of refusals: %v, want some Apply with backoff and nothing else", n)
		}
		if n := len(c.source("platform").Status.Runs); n != runs {
			t.Errorf("runs grew from %d to %d by failing the same way", runs, n)
		}
		c.mu.Lock()
		delete(c.refused, "bad")
		c.mu.Unlock()
		c.pass(6 * time.Minute)
		c.wantProjects("bad a:1 source/platform", "good a:1 source/platform")
		c.wantCondition("platform", api.CondReady, api.StatusTrue, "2 projects")
	})
}

func TestPruneAndItsGate(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		var all []*carav1.Claim
		for i := range 10 {
			all = append(all, testlaw.Claim(fmt.Sprintf("p%d", i), "a:1"))
		}
		c.push("rev-1", all...)
		c.push("rev-2", all[:8]...)
		if n := len(fakecluster.All[*carav1.Project](c.Cluster)); n != 8 {
			t.Fatalf("%d projects after a prune of 2, want 8", n)
		}
		c.told()
		c.push("1234567890", all[:1]...)
		c.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "7 of 8 projects and pruneLimit allows 3; `caractrl confirm platform@1234567`")
		c.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "kept: p1, p2, p3, p4, p5, p6, p7")
		if d := cmp.Diff([]string{"PruneBlocked platform"}, c.told()); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		c.wantQuiet()
		s := c.source("platform")
		s.Status.ConfirmedRevision = "1234567890"
		c.Put(s)
		c.settle()
		c.wantProjects("p0 a:1 source/platform")
		c.wantStates("platform/p0 Applied")
		c.wantCondition("platform", api.CondPruneBlocked, api.StatusFalse, "")
		c.push("rev-4")
		c.wantProjects("p0 a:1 source/platform")
		c.wantCondition("platform", api.CondPruneBlocked, api.StatusTrue, "allowEmpty")
	})
}

func TestFailedDeleteIsKeptAndRetried(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"))
		c.Refuse("DeleteProject", api.Unavailable("the store is full"))
		c.push("rev-2", testlaw.Claim("web", "a:1"))
		c.wantStates("platform/old PruneBlocked", "platform/web Applied")
		c.wantCondition("platform", api.CondReady, api.StatusFalse, "the store is full")
		c.Refuse("DeleteProject", nil)
		c.pass(2 * time.Minute)
		c.wantProjects("web a:1 source/platform")
		c.wantStates("platform/web Applied")
		c.wantCondition("platform", api.CondReady, api.StatusTrue, "1 project as at rev-2")
	})
}

func TestInventoryIsWrittenBeforeItIsPruned(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.Refuse("UpdateClaims", api.Unavailable("power is out"))
		c.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("stays", "a:1"))
		c.stop()
		c.Refuse("UpdateClaims", nil)
		c.publish(t, "platform", "rev-2", testlaw.Claim("stays", "a:1"))
		c.start()
		c.settle()
		c.wantProjects("stays a:1 source/platform")
		c.wantStates("platform/stays Applied")
	})
}

func TestHandOverBetweenSources(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.Put(newSource("team", "s2"))
		mine := func(name, image string) *carav1.Claim {
			return testlaw.Claim(name, image, testlaw.From("team", "s2", "team/"+name+".yaml"))
		}
		c.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "a:1"))
		c.publish(t, "team", "t-1", mine("web", "a:2"))
		c.settle()
		c.wantProjects("db a:1 source/platform", "web a:1 source/platform")
		c.wantCondition("team", api.CondConflict, api.StatusTrue, "owned by source/platform (it is declared there in web.yaml:1)")
		uid := c.project("web").Metadata.Uid
		c.push("rev-2", testlaw.Claim("db", "a:1"))
		c.wantProjects("db a:1 source/platform", "web a:2 source/team")
		c.wantStates("platform/db Applied", "team/web Applied")
		if got := c.project("web").Metadata.Uid; got != uid {
			t.Errorf("uid %s, was %s: deleted and recreated", got, uid)
		}
		c.wantCondition("team", api.CondConflict, api.StatusFalse, "")
		c.wantQuiet()
	})
}

func TestOverride(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		p := c.project("web")
		p.Spec.Services[0].Image, p.Metadata.Generation = "hand:1", 2
		o := &carav1.Override{
			Metadata: &carav1.ObjectMeta{Name: "web"}, Scope: api.OverrideSpec, Actor: "user/ada", Reason: "incident 7",
			Until: timestamppb.New(time.Now().Add(2 * time.Hour)),
		}
		c.Put(p, o)
		c.settle()
		c.push("rev-2", testlaw.Claim("web", "a:2"))
		c.wantProjects("web hand:1 source/platform")
		c.wantStates("platform/web Overridden")
		c.wantCondition("platform", api.CondReady, api.StatusTrue, "")
		c.pass(2*time.Hour - 10*time.Second)
		c.wantProjects("web hand:1 source/platform")
		c.pass(10 * time.Second)
		c.wantProjects("web a:2 source/platform")
		c.wantStates("platform/web Applied")
	})
}

func TestOverrideUntilNextChange(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		p := c.project("web")
		p.Spec.Services[0].Image, p.Metadata.Generation = "hand:1", 2
		c.Put(p, &carav1.Override{
			Metadata: &carav1.ObjectMeta{Name: "web"}, Scope: api.OverrideSpec, Actor: "user/ada", Reason: "incident 7", UntilHash: testlaw.Claim("web", "a:1").Spec.Hash,
		})
		c.settle()
		c.wantProjects("web hand:1 source/platform")
		c.push("rev-2", testlaw.Claim("web", "a:2"))
		c.push("rev-3", testlaw.Claim("web", "a:1"))
		c.wantProjects("web a:1 source/platform")
		if o := fakecluster.Read[*carav1.Override](c.Cluster, "web"); o != nil {
			t.Errorf("the override stands: %v", o)
		}
	})
}

func TestExpiryIsNotUndone(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		at := time.Now().Add(time.Hour)
		c.push("rev-1", testlaw.Claim("pr-1", "a:1", testlaw.Expiring(at)), testlaw.Claim("pr-0", "a:1", testlaw.Expiring(time.Now())))
		c.wantStates("platform/pr-0 Expired", "platform/pr-1 Applied")
		c.pass(time.Hour)
		c.finish("pr-1")
		c.settle()
		c.wantProjects()
		c.wantStates("platform/pr-0 Expired", "platform/pr-1 Expired")
		c.wantQuiet()
		c.push("rev-2", testlaw.Claim("pr-1", "a:1", testlaw.Expiring(at.Add(2*time.Hour))))
		c.wantProjects("pr-1 a:1 source/platform")
		c.wantStates("platform/pr-1 Applied")
	})
}

func TestSuspend(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("old", "a:1"))
		s := c.source("platform")
		s.Spec.Suspend, s.Status.RequestedToken = true, "token-1"
		c.Put(s)
		c.push("rev-2", testlaw.Claim("web", "a:2"))
		c.wantProjects("old a:1 source/platform", "web a:1 source/platform")
		c.wantCondition("platform", api.CondSuspended, api.StatusTrue, "")
		c.wantCondition("platform", api.CondReady, api.StatusFalse, "Suspended")
		s = c.source("platform")
		if s.Status.HandledToken != "token-1" {
			t.Errorf("handled token %q", s.Status.HandledToken)
		}
		s.Spec.Suspend = false
		c.Put(s)
		c.settle()
		c.wantProjects("web a:2 source/platform")
		c.wantCondition("platform", api.CondSuspended, api.StatusFalse, "")
	})
}

func TestTokenIsEchoedWhenThePassIsOver(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		s := c.source("platform")
		s.Status.RequestedToken = "token-1"
		c.Put(s)
		c.settle()
		if got := c.source("platform").Status.HandledToken; got != "" {
			t.Errorf("handled %q before the source was read for it", got)
		}
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		if got := c.source("platform").Status.HandledToken; got != "token-1" {
			t.Errorf("handled %q, want token-1", got)
		}
		c.push("rev-2", testlaw.Claim("web", "a:2"))
		s = c.source("platform")
		s.Status.RequestedToken = "token-3"
		s.Status.Snapshot.Token, s.Status.Snapshot.Sequence = "token-2", s.Status.Snapshot.Sequence+1
		c.Put(s)
		c.settle()
		if got := c.source("platform").Status.HandledToken; got != "token-2" {
			t.Errorf("handled %q, want token-2: the snapshot was read before token-3 was given out", got)
		}
	})
}

func TestDeletedSource(t *testing.T) {
	deleteSource := func(c *cluster, onDelete string) {
		s := c.source("platform")
		s.Metadata.DeletionTimestamp, s.Spec.OnDelete = timestamppb.Now(), onDelete
		c.Put(s)
		c.settle()
	}
	t.Run("Orphan", func(t *testing.T) {
		run(t, func(t *testing.T, c *cluster) {
			c.push("rev-1", testlaw.Claim("web", "a:1"))
			deleteSource(c, "")
			c.wantProjects("web a:1 nobody")
			c.Put(newSource("platform", "s9"))
			c.push("rev-2", testlaw.Claim("web", "a:1", testlaw.From("platform", "s9", "web.yaml")))
			c.wantProjects("web a:1 source/platform")
		})
	})
	t.Run("Delete", func(t *testing.T) {
		run(t, func(t *testing.T, c *cluster) {
			c.slow = true
			c.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "a:1"))
			deleteSource(c, api.OnDeleteDelete)
			if c.source("platform") == nil {
				t.Fatal("the source went before its projects")
			}
			c.wantCondition("platform", api.CondReady, api.StatusFalse, "Deleting")
			c.finish()
			c.settle()
			c.wantProjects()
			if c.source("platform") != nil {
				t.Error("the source is still there")
			}
		})
	})
	t.Run("Delete hands over what another source claims", func(t *testing.T) {
		run(t, func(t *testing.T, c *cluster) {
			c.Put(newSource("team", "s2"))
			c.push("rev-1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "a:1"))
			c.publish(t, "team", "t-1", testlaw.Claim("web", "a:1", testlaw.From("team", "s2", "web.yaml")))
			c.settle()
			suspended := c.source("team")
			suspended.Spec.Suspend = true
			c.Put(suspended)
			c.settle()
			deleteSource(c, api.OnDeleteDelete)
			c.wantProjects("web a:1 source/platform")
			c.wantCondition("platform", api.CondReady, api.StatusFalse, "it waits for project web to be taken over by source/team")
			suspended = c.source("team")
			suspended.Spec.Suspend = false
			c.Put(suspended)
			c.settle()
			c.wantProjects("web a:1 source/team")
			if c.source("platform") != nil {
				t.Error("the source is still there")
			}
		})
	})
}

func TestDeletedByHandIsMadeAnew(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		c.Delete(api.KindProject, "web")
		c.settle()
		c.wantProjects("web a:1 source/platform")
		c.wantStates("platform/web Applied")
		c.wantQuiet()
	})
}

func TestApplyOutageIsRetried(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.Refuse("Apply", api.Unavailable("the store is away"))
		c.push("rev-1", testlaw.Claim("web", "a:1"))
		c.wantProjects()
		c.wantCondition("platform", api.CondReady, api.StatusFalse, "the store is away")
		c.Refuse("Apply", nil)
		c.pass(2 * time.Minute)
		c.wantProjects("web a:1 source/platform")
		c.wantCondition("platform", api.CondReady, api.StatusTrue, "1 project")
	})
}

func TestNoPassOnAPictureOlderThanItsOwnWrites(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.refused["bad"], c.lag = "no", true // its retry wakes passes while the watch is silent
		c.push("rev-1", testlaw.Claim("bad", "a:1"), testlaw.Claim("good", "a:1"))
		c.pass(time.Minute)
		if n := c.TakeCalls()["Apply"]; n != 1 {
			t.Errorf("%d calls of Apply while the watch was silent, want 1", n)
		}
		c.lag = false
		c.Hold(false)
		c.settle()
		if n := c.TakeCalls()["Apply"]; n != 1 {
			t.Errorf("%d calls of Apply when the watch had caught up, want 1: the refused project's", n)
		}
		c.wantStates("platform/bad Refused", "platform/good Applied")
	})
}

func TestAStatusThatTheWatchHasNotToldIsNotWrittenTwice(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		c.Put(newSource("team", "s2"))
		c.refused["bad"] = "no"
		c.push("rev-1", testlaw.Claim("bad", "a:1"))
		c.refused["worse"] = "no"
		c.lag = true
		c.TakeCalls()
		c.push("rev-2", testlaw.Claim("bad", "a:1"), testlaw.Claim("worse", "a:1"))
		before := c.TakeCalls()["UpdateClaims"]
		c.pass(time.Hour)
		if n := c.TakeCalls()["UpdateClaims"]; before != 1 || n != 0 {
			t.Errorf("%d calls of UpdateClaims for the push and %d after it, want 1 and 0", before, n)
		}
		c.lag = false
		c.Hold(false)
	})
}

func TestOneObjectThatBreaksItsRequestIsSingledOut(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		var all []*carav1.Claim
		for i := range 20 {
			all = append(all, testlaw.Claim(fmt.Sprintf("p%02d", i), "a:1"))
		}
		c.poison("p07")
		c.push("rev-1", all...)
		if n := len(fakecluster.All[*carav1.Project](c.Cluster)); n != 19 {
			t.Errorf("%d projects, want 19", n)
		}
		if got := fakecluster.Read[*carav1.Claim](c.Cluster, "platform/p07"); got.Status.State != api.ClaimRefused || !strings.Contains(got.Status.Message, "too large") {
			t.Errorf("claim %v", got.Status)
		}
	})
}

func TestStatusOfManyClaimsOnlyWhereItChanged(t *testing.T) {
	run(t, func(t *testing.T, c *cluster) {
		var all []*carav1.Claim
		for i := range 300 {
			all = append(all, testlaw.Claim(fmt.Sprintf("p%03d", i), "a:1"))
		}
		c.push("rev-1", all...)
		c.TakeCalls()
		all[7] = testlaw.Claim("p007", "a:2")
		before := fakecluster.Read[*carav1.Claim](c.Cluster, "platform/p008")
		c.push("rev-2", all...)
		if d := cmp.Diff(map[string]int{"Apply": 1, "UpdateClaims": 1, "UpdateSourceStatus": 1}, c.TakeCalls()); d != "" {
			t.Errorf("calls for one change (-want +got):\n%s", d)
		}
		if after := fakecluster.Read[*carav1.Claim](c.Cluster, "platform/p008"); !proto.Equal(before.Status, after.Status) {
			t.Errorf("status of an unchanged claim was written: %v", after.Status)
		}
	})
}
