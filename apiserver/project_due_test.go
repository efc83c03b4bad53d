package apiserver

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// TestAPruneInFlight: a decision on older state is checked again at the commit.
func TestAPruneInFlight(t *testing.T) {
	tests := map[string]struct {
		meanwhile func(t *testing.T, w *town)
		says      string // empty: the project is deleted
	}{
		"nothing happened": {func(*testing.T, *town) {}, ""},
		"its manifest came back": {func(t *testing.T, w *town) {
			w.publishAs(t, w.source(t, "platform"), 3, []*carav1.ClaimSpec{claim("web")})
		}, `source "platform" declares it in web.yaml`},
		"another source claims it": {func(t *testing.T, w *town) { w.declares(t, "team", "web") }, `source "team" declares it in web.yaml`},
		"another source claimed it and is being deleted": {func(t *testing.T, w *town) {
			w.declares(t, "team", "web")
			if _, err := carav1.NewSourceServiceClient(w.as(t, "admin")).DeleteSource(t.Context(), &carav1.DeleteRequest{Name: "team"}); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"its source was suspended": {func(t *testing.T, w *town) {
			if _, err := carav1.NewSourceServiceClient(w.as(t, "admin")).SuspendSource(t.Context(), &carav1.GetRequest{Name: "platform"}); err != nil {
				t.Fatal(err)
			}
		}, `its source "platform" is suspended`},
		"a person overrode git": {func(t *testing.T, w *town) {
			if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Terms: &carav1.OverrideTerms{Reason: "keep it"}}); err != nil {
				t.Fatal(err)
			}
		}, "keep it"},
		"it was released": {func(t *testing.T, w *town) {
			if _, err := w.admin.ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
		}, "belongs to user/admin"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			w.declares(t, "platform", "web", "stays")
			w.applyFor(t, "platform", "", web("web"))
			w.publishAs(t, w.source(t, "platform"), 2, nil, "web")
			uid := w.get(t, "web").GetMetadata().GetUid()
			tt.meanwhile(t, w)
			_, err := w.reconciler.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", Uid: uid, Owner: "source/platform", Reason: "Pruned"})
			if tt.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			testproblem.Want(t, err, codes.Aborted, "")
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v does not say %s", err, tt.says)
			}
			w.get(t, "web")
		})
	}
}

// TestAClaimAtTheSameMoment: the absence of other claims is a condition of a project's deletion.
func TestAClaimAtTheSameMoment(t *testing.T) {
	w := newTown(t)
	w.declares(t, "platform", "stays")
	w.declares(t, "team", "stays-2")
	w.applyFor(t, "platform", "", web("web"))
	tries := 0
	err := w.db.Transact(identity.WithActor(t.Context(), identity.Actor{Name: "system/reconciler", Role: api.RoleReconciler}), func(x *state.Tx) error {
		_, err := rules.DeleteProject(x, &carav1.DeleteProjectRequest{Name: "web", Owner: "source/platform", Reason: "Pruned"})
		if tries++; tries == 1 {
			if err != nil {
				t.Fatal(err)
			}
			w.publishAs(t, w.source(t, "team"), 2, []*carav1.ClaimSpec{claim("web")})
		}
		return err
	})
	testproblem.Want(t, err, codes.Aborted, api.TitleConflict)
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
	w.get(t, "web")
}

func TestAnExpiryThatWasMoved(t *testing.T) {
	at := time.Now().Add(time.Hour)
	expire := func(w *town) error {
		_, err := w.gc.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "pr-1", Reason: "Expired"})
		return err
	}
	clock := newClock()
	w := newTown(t)
	w.db.Now = clock.now
	p := web("pr-1")
	p.Spec.ExpireAt = timestamppb.New(at)
	w.applyFor(t, "platform", "", p)
	testproblem.Want(t, expire(w), codes.Aborted, api.TitleConflict)
	clock.step(time.Second)
	if _, err := w.admin.ExtendProject(t.Context(), &carav1.ExtendProjectRequest{Name: "pr-1", By: durationpb.New(time.Hour), Reason: "demo"}); err != nil {
		t.Fatal(err)
	}
	clock.step(90 * time.Minute)
	testproblem.Want(t, expire(w), codes.Aborted, api.TitleConflict)
	clock.step(31 * time.Minute)
	if err := expire(w); err != nil {
		t.Error(err)
	}
	if got := w.eventsOf(t, "pr-1"); !strings.Contains(got, "Extended OverrideEnded Removed") {
		t.Errorf("events %s", got)
	}
}

// TestExpiringGoesWhenTheExpiryMoves: the notice is about one expiry, and every change of the expiry removes it.
func TestExpiringGoesWhenTheExpiryMoves(t *testing.T) {
	extend := func(t *testing.T, w *town) {
		if _, err := w.admin.ExtendProject(t.Context(), &carav1.ExtendProjectRequest{Name: "pr-1", By: durationpb.New(time.Hour), Reason: "demo"}); err != nil {
			t.Fatal(err)
		}
	}
	notice := func(t *testing.T, w *town) {
		if _, err := w.gc.NoticeExpiry(t.Context(), &carav1.RemoveProjectRequest{Name: "pr-1", Uid: w.get(t, "pr-1").GetMetadata().GetUid()}); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		first, move func(t *testing.T, w *town, p *carav1.Project)
		stays       bool
	}{
		"extended": {move: func(t *testing.T, w *town, _ *carav1.Project) { extend(t, w) }},
		"a later one in git": {move: func(t *testing.T, w *town, p *carav1.Project) {
			p.Spec.ExpireAt = timestamppb.New(time.Now().Add(9 * time.Hour))
			w.applyFor(t, "platform", "", p)
		}},
		"none in git any more": {move: func(t *testing.T, w *town, p *carav1.Project) {
			p.Spec.ExpireAt = nil
			w.applyFor(t, "platform", "", p)
		}},
		"the extension cleared": {
			first: func(t *testing.T, w *town, _ *carav1.Project) { extend(t, w) },
			move: func(t *testing.T, w *town, _ *carav1.Project) {
				if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "pr-1", Clear: true}); err != nil {
					t.Fatal(err)
				}
			},
		},
		"another image, the same expiry": {stays: true, move: func(t *testing.T, w *town, p *carav1.Project) {
			p.Spec.Services[0].Image = "nginx:2"
			w.applyFor(t, "platform", "", p)
		}},
		"another image under an extension": {
			stays: true, first: func(t *testing.T, w *town, _ *carav1.Project) { extend(t, w) },
			move: func(t *testing.T, w *town, p *carav1.Project) {
				p.Spec.Services[0].Image = "nginx:2"
				w.applyFor(t, "platform", "", p)
			},
		},
		"overridden by hand under an extension": {
			stays: true, first: func(t *testing.T, w *town, _ *carav1.Project) { extend(t, w) },
			move: func(t *testing.T, w *town, p *carav1.Project) {
				p.Spec.Services[0].Image = "nginx:2"
				out, err := w.person.Apply(t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(p)}, Override: &carav1.OverrideTerms{Reason: "hotfix"}})
				if err != nil || out.GetResults()[0].GetProblem() != nil {
					t.Fatalf("%v %v", out, err)
				}
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			p := web("pr-1")
			p.Spec.ExpireAt = timestamppb.New(time.Now().Add(10 * time.Minute))
			w.applyFor(t, "platform", "", p)
			if tt.first != nil {
				tt.first(t, w, p)
			}
			notice(t, w)
			before, at := w.db.Cache.Revision(), w.get(t, "pr-1").GetStatus().GetExpireAt().AsTime()
			notice(t, w)
			if w.db.Cache.Revision() != before {
				t.Error("a second notice was written")
			}
			if c := api.FindCondition(w.get(t, "pr-1").GetStatus().GetConditions(), api.CondExpiring); !strings.Contains(c.GetMessage(), at.UTC().Format(time.RFC3339)) {
				t.Errorf("condition %v", c)
			}
			tt.move(t, w, p)
			got := w.get(t, "pr-1").GetStatus()
			if api.IsTrue(got.GetConditions(), api.CondExpiring) != tt.stays || got.GetExpireAt().AsTime().Equal(at) != tt.stays {
				t.Errorf("expires at %v, was %v; conditions %v", got.GetExpireAt().AsTime(), at, got.GetConditions())
			}
		})
	}
}

func TestExtensionsThatMeanNothing(t *testing.T) {
	w := newTown(t)
	w.applyFor(t, "platform", "", web("for-ever"))
	_, err := w.admin.ExtendProject(t.Context(), &carav1.ExtendProjectRequest{Name: "for-ever", Until: timestamppb.New(time.Now().Add(time.Hour))})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	p := web("pr-1")
	p.Spec.ExpireAt = timestamppb.New(time.Now().Add(time.Hour))
	w.applyFor(t, "platform", "", p)
	_, err = w.admin.ExtendProject(t.Context(), &carav1.ExtendProjectRequest{Name: "pr-1", Until: timestamppb.New(time.Now().Add(time.Minute))})
	testproblem.Want(t, err, codes.InvalidArgument, api.TitleInvalid)
}
