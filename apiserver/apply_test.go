package apiserver

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// applyFor is a source's apply of one project.
func (w *town) applyFor(t testing.TB, source, adopt string, p *carav1.Project, handOver ...string) *carav1.ApplyResult {
	t.Helper()
	w.haveSource(t, source)
	p.Metadata.Origin = &carav1.Origin{File: "deploy/web.yaml", Line: 1, Revision: "1a2b3c4d5e6f"}
	out, err := w.apply.Apply(t.Context(), &carav1.ApplyRequest{
		Source: source, Adopt: adopt, HandOver: handOver, Objects: []*carav1.Object{api.Wrap(p)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetResults()[0]
}

func image(name, image string) *carav1.Project {
	p := web(name)
	p.Spec.Services[0].Image = image
	return p
}

func TestOwnership(t *testing.T) {
	tests := []struct {
		name          string
		made          func(t *testing.T, w *town)
		source, adopt string
		handOver      []string
		action, title string
	}{
		{"new", func(*testing.T, *town) {}, "a", "", nil, api.ApplyCreated, ""},
		{"its own, changed", bySource("a", "nginx:0"), "a", "", nil, api.ApplyConfigured, ""},
		{"its own, as it is", bySource("a", "nginx:1"), "a", "", nil, api.ApplyUnchanged, ""},
		{"another source's", bySource("b", "nginx:1"), "a", "Always", nil, api.ApplyRefused, api.TitleOwned},
		{"another source's, handed over", bySource("b", "nginx:1"), "a", "", []string{"source/b"}, api.ApplyConfigured, ""},
		{"a user's", byUser, "a", "", nil, api.ApplyRefused, api.TitleAdoptionRequired},
		{"a user's, adopt Never", byUser, "a", "Never", nil, api.ApplyRefused, api.TitleAdoptionRequired},
		{"a user's, adopt Always", byUser, "a", "Always", nil, api.ApplyConfigured, ""},
		{"an orphan", orphan, "a", "", nil, api.ApplyConfigured, ""},
		{"an orphan, adopt Never", orphan, "a", "Never", nil, api.ApplyRefused, api.TitleAdoptionRequired},
		{"being deleted", func(t *testing.T, w *town) {
			bySource("a", "nginx:0")(t, w)
			w.running(t, "web")
			if _, err := w.reconciler.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", NoWait: true}); err != nil {
				t.Fatal(err)
			}
		}, "a", "", nil, api.ApplyRefused, "Terminating"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newTown(t)
			tt.made(t, w)
			w.haveSource(t, tt.source)
			before := w.db.Cache.Revision()
			r := w.applyFor(t, tt.source, tt.adopt, image("web", "nginx:1"), tt.handOver...)
			if r.GetAction() != tt.action || r.GetProblem().GetTitle() != tt.title {
				t.Fatalf("got %v, want %s %s", r, tt.action, tt.title)
			}
			if wrote := w.db.Cache.Revision() != before; wrote == (tt.action == api.ApplyUnchanged || tt.action == api.ApplyRefused) {
				t.Errorf("%s wrote: %v", tt.action, wrote)
			}
			if tt.action == api.ApplyCreated || tt.action == api.ApplyConfigured {
				if p := w.get(t, "web"); p.GetMetadata().GetOwner() != "source/"+tt.source || p.GetMetadata().GetOrigin().GetFile() == "" {
					t.Errorf("owner and origin: %v", p.GetMetadata())
				}
			}
		})
	}
}

func bySource(source, img string) func(*testing.T, *town) {
	return func(t *testing.T, w *town) { w.applyFor(t, source, "", image("web", img)) }
}

func byUser(t *testing.T, w *town) { fillWith(t, w.house, image("web", "nginx:1")) }

func orphan(t *testing.T, w *town) {
	sources := carav1.NewSourceServiceClient(w.as(t, "admin"))
	src, err := sources.CreateSource(t.Context(), &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "old"},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	bySource("old", "nginx:1")(t, w)
	if _, err := sources.DeleteSource(t.Context(), &carav1.DeleteRequest{Name: "old"}); err != nil {
		t.Fatal(err)
	}
	remove := &carav1.DeleteRequest{Name: "old", Uid: src.GetMetadata().GetUid()}
	if _, err := carav1.NewSourceServiceClient(w.loop(t, "reconciler")).RemoveSource(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	if owner := w.get(t, "web").GetMetadata().GetOwner(); owner != "" {
		t.Fatalf("the orphan belongs to %q", owner)
	}
}

const ownedBy = `project "web" belongs to source/platform, deploy/web.yaml at 1a2b3c4: change it in git, or use --override --reason WHY`

func TestPeopleDoNotChangeWhatGitDecides(t *testing.T) {
	w := newTown(t)
	w.applyFor(t, "platform", "", image("web", "nginx:1"))
	put := func() error {
		_, err := w.admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: image("web", "nginx:2")})
		return err
	}
	del := func() error {
		_, err := w.admin.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web"})
		return err
	}
	for name, change := range map[string]func() error{"put": put, "delete": del} {
		err := change()
		testproblem.Want(t, err, codes.FailedPrecondition, api.TitleOwned)
		if got := api.ProblemOf(err).GetDetail(); got != ownedBy {
			t.Errorf("%s: %s", name, got)
		}
	}
	out, err := w.person.Apply(t.Context(), &carav1.ApplyRequest{
		Objects:  []*carav1.Object{api.Wrap(image("web", "nginx:2"))},
		Override: &carav1.OverrideTerms{Reason: "hotfix", For: durationpb.New(time.Hour)},
	})
	if err != nil || out.GetResults()[0].GetAction() != api.ApplyConfigured {
		t.Fatalf("%v %v", out, err)
	}
	if r := w.applyFor(t, "platform", "", image("web", "nginx:1")); r.GetProblem().GetTitle() != api.TitleOverridden ||
		!strings.Contains(r.GetProblem().GetDetail(), "hotfix") {
		t.Errorf("git under an override: %v", r)
	}
	if c := api.FindCondition(w.get(t, "web").GetStatus().GetConditions(), api.CondOverridden); c.GetStatus() != api.StatusTrue {
		t.Errorf("condition %v", c)
	}
	out, err = w.person.Apply(t.Context(), &carav1.ApplyRequest{
		Objects:  []*carav1.Object{api.Wrap(image("web", "nginx:2"))},
		Override: &carav1.OverrideTerms{Reason: "longer", For: durationpb.New(2 * time.Hour)},
	})
	if err != nil || out.GetResults()[0].GetAction() != api.ApplyConfigured {
		t.Errorf("the same spec with other terms: %v %v", out, err)
	}
	if c := api.FindCondition(w.get(t, "web").GetStatus().GetConditions(), api.CondOverridden); !strings.HasSuffix(c.GetMessage(), ": longer") {
		t.Errorf("condition %v after other terms", c)
	}
	_, err = w.gc.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Clear: true})
	testproblem.Want(t, err, codes.Aborted, api.TitleConflict) // only a person ends what has not ended
	if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Clear: true}); err != nil {
		t.Fatal(err)
	}
	if r := w.applyFor(t, "platform", "", image("web", "nginx:1")); r.GetAction() != api.ApplyConfigured {
		t.Errorf("git after the override: %v", r)
	}
}

func TestAHeldDownDeleteStaysDeleted(t *testing.T) {
	w := newTown(t)
	w.applyFor(t, "platform", "", image("web", "nginx:1"))
	answer, err := w.admin.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", Override: &carav1.OverrideTerms{Reason: "too loud"}})
	if err != nil || !answer.GetGone() {
		t.Fatalf("%v %v", answer, err)
	}
	if r := w.applyFor(t, "platform", "", image("web", "nginx:1")); r.GetProblem().GetTitle() != api.TitleOverridden {
		t.Errorf("git brought it back: %v", r)
	}
	if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Clear: true}); err != nil {
		t.Fatal(err)
	}
	if r := w.applyFor(t, "platform", "", image("web", "nginx:1")); r.GetAction() != api.ApplyCreated {
		t.Errorf("git after the override: %v", r)
	}
}

func TestPreconditionsOfADeletion(t *testing.T) {
	w := newTown(t)
	w.applyFor(t, "platform", "", image("web", "nginx:1"))
	_, err := w.reconciler.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", Owner: "source/other", Reason: "Pruned"})
	testproblem.Want(t, err, codes.Aborted, api.TitleOwned)
	_, err = w.reconciler.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", Uid: "another", Reason: "Pruned"})
	testproblem.Want(t, err, codes.Aborted, api.TitleConflict)
	answer, err := w.reconciler.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", Owner: "source/platform", Reason: "Pruned"})
	if err != nil || !answer.GetGone() {
		t.Fatalf("%v %v", answer, err)
	}
	if grave, _ := state.Get[*carav1.Tombstone](w.db.Cache, "web"); grave.GetReason() != "Pruned" || grave.GetActor() != "system/reconciler" {
		t.Errorf("tombstone %v", grave)
	}
}

func TestAHostIsOneProjects(t *testing.T) {
	w := newTown(t)
	host := func(name, host string) *carav1.Project {
		p := web(name)
		p.Spec.Ingress = []*carav1.Ingress{{Name: "web", Host: host, Target: &carav1.IngressTarget{Service: "web", Port: 80}}}
		return p
	}
	var wg sync.WaitGroup
	results := make([]*carav1.ApplyResult, 8)
	for i := range results {
		wg.Go(func() { results[i] = w.applyFor(t, "platform", "", host(fmt.Sprintf("p-%d", i), "Shop")) })
	}
	wg.Wait()
	created, name := 0, ""
	for _, r := range results {
		if r.GetAction() == api.ApplyCreated {
			created, name = created+1, r.GetName()
		}
	}
	if created != 1 {
		t.Fatalf("%d projects have the host: %v", created, results)
	}
	if got := w.get(t, name).GetStatus().GetHosts(); len(got) != 1 || got[0] != "shop.dev.example.test" {
		t.Errorf("hosts %v", got)
	}
	_, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: host("late", "shop.dev.example.test")})
	testproblem.Want(t, err, codes.AlreadyExists, api.TitleConflict)
	if !strings.Contains(err.Error(), name) {
		t.Errorf("%v does not name %s", err, name)
	}
	if r := w.applyFor(t, "platform", "", host(name, "blog")); r.GetAction() != api.ApplyConfigured {
		t.Fatal(r)
	}
	if _, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: host("late", "shop")}); err != nil {
		t.Errorf("the host was let go and is not free: %v", err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, image("web", "nginx:1"))
	before := w.db.Cache.Revision()
	out, err := w.person.Apply(t.Context(), &carav1.ApplyRequest{DryRun: true, Objects: []*carav1.Object{
		api.Wrap(image("web", "nginx:2")), api.Wrap(web("new")), api.Wrap(image("web", "nginx:3")), api.Wrap(&carav1.Event{}),
		{},
		api.Wrap(&carav1.Project{ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: "bad"}}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{api.ApplyConfigured, api.ApplyCreated, api.ApplyRefused, api.ApplyRefused, api.ApplyRefused, api.ApplyRefused}
	for i, r := range out.GetResults() {
		if r.GetAction() != want[i] {
			t.Errorf("result %d: %v, want %s", i, r, want[i])
		}
	}
	if d := out.GetResults()[0].GetDiff(); len(d) != 1 || d[0].GetPath() != "spec.services[web].image" {
		t.Errorf("diff %v", d)
	}
	if w.db.Cache.Revision() != before {
		t.Error("a dry run wrote")
	}
}

func TestApplyBoundsAPrefix(t *testing.T) {
	w := newTown(t)
	out, err := carav1.NewApplyServiceClient(w.as(t, "ci")).Apply(t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{
		api.Wrap(web("pr-1")), api.Wrap(web("shop")),
		api.Wrap(&carav1.Source{ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "pr-s"}, Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/x"}}}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, title := range []string{"", api.TitleForbidden, api.TitleForbidden} {
		if got := out.GetResults()[i].GetProblem().GetTitle(); got != title {
			t.Errorf("result %d: %v", i, out.GetResults()[i])
		}
	}
}
