package apiserver

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// commit is a source's apply of an image at a commit.
func (w *town) commit(t testing.TB, name, img, revision string) {
	t.Helper()
	w.haveSource(t, "platform")
	p := image(name, img)
	p.Metadata.Origin = &carav1.Origin{File: name + ".yaml", Revision: revision, Author: "Ada", Subject: "use " + img}
	out, err := w.apply.Apply(t.Context(), &carav1.ApplyRequest{Source: "platform", Objects: []*carav1.Object{api.Wrap(p)}})
	if err != nil || out.GetResults()[0].GetProblem() != nil {
		t.Fatalf("%v %v", out, err)
	}
}

func (w *town) history(t testing.TB, name string) []*carav1.Revision {
	t.Helper()
	out, err := carav1.NewProjectServiceClient(w.as(t, "viewer")).GetProjectHistory(t.Context(), &carav1.GetRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetItems()
}

func TestHistoryOfAProject(t *testing.T) {
	w := newTown(t)
	for i := range 13 {
		w.commit(t, "web", fmt.Sprintf("nginx:%d", i), fmt.Sprintf("%040d", i))
	}
	items := w.history(t, "web")
	if len(items) != rules.HistoryLength {
		t.Fatalf("%d revisions, want %d", len(items), rules.HistoryLength)
	}
	for i, r := range items {
		n := 12 - i
		if r.GetGeneration() != int32(n+1) || r.GetProject().GetSpec().GetServices()[0].GetImage() != fmt.Sprintf("nginx:%d", n) ||
			r.GetActor() != "source/platform" || r.GetOrigin().GetRevision() != fmt.Sprintf("%040d", n) ||
			r.GetOrigin().GetAuthor() != "Ada" || r.GetOrigin().GetSubject() == "" || r.GetTime() == nil || r.GetSpecHash() == "" {
			t.Errorf("revision %d: %v", i, r)
		}
	}
	before := w.db.Cache.Revision()
	w.commit(t, "web", "nginx:12", strings.Repeat("f", 40))
	if len(w.history(t, "web")) != rules.HistoryLength || w.db.Cache.Revision() != before {
		t.Error("another commit with the same spec made history")
	}
	now := w.db.Cache.View()
	for _, kind := range now.Kinds() {
		now.Ascend(kind, "web/", "", func(e *state.Entry) bool {
			if strings.Contains(e.Name, "00000000") {
				t.Errorf("the cache has %s", e.Name)
			}
			return true
		})
	}
	if _, err := w.admin.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", Override: &carav1.OverrideTerms{Reason: "x"}}); err != nil {
		t.Fatal(err)
	}
	_, err := w.admin.GetProjectHistory(t.Context(), &carav1.GetRequest{Name: "web"})
	testproblem.Want(t, err, codes.NotFound, "")
	if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Clear: true}); err != nil {
		t.Fatal(err)
	}
	w.commit(t, "web", "nginx:new", strings.Repeat("a", 40))
	if items := w.history(t, "web"); len(items) != 1 || items[0].GetGeneration() != 1 {
		t.Errorf("a namesake has the history of who was there before: %v", items)
	}
	if a := w.do(t, "viewer", http.MethodGet, "/api/v1/projects/web/history", ""); a.code != http.StatusOK || !strings.Contains(a.body, `"generation":1`) {
		t.Errorf("REST: %d %s", a.code, a.body)
	}
}

func TestRollback(t *testing.T) {
	w := newTown(t)
	revs := []string{strings.Repeat("1a", 20), strings.Repeat("2b", 20), strings.Repeat("3c", 20)}
	for i, rev := range revs {
		w.commit(t, "web", fmt.Sprintf("nginx:%d", i), rev)
	}
	rollback := func(to string, terms *carav1.OverrideTerms) (*carav1.Project, error) {
		return w.admin.RollbackProject(t.Context(), &carav1.RollbackProjectRequest{Name: "web", To: to, Terms: terms})
	}
	_, err := rollback("1", nil)
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleOwned)
	if !strings.Contains(err.Error(), "source/platform, web.yaml at 3c3c3c3") || !strings.Contains(err.Error(), "--reason WHY") {
		t.Errorf("the refusal says %v", err)
	}
	why := &carav1.OverrideTerms{Reason: "the new one burns", For: durationpb.New(time.Hour)}
	for _, to := range []string{"9", "2b2b2b", "ffffffff", "12345678"} {
		_, err = rollback(to, why)
		testproblem.Want(t, err, codes.NotFound, "")
		if !strings.Contains(err.Error(), "3 (3c3c3c3), 2 (2b2b2b2), 1 (1a1a1a1)") {
			t.Errorf("the refusal does not say what there is: %v", err)
		}
	}
	p, err := rollback("2b2b2b2", why)
	if err != nil || p.GetSpec().GetServices()[0].GetImage() != "nginx:1" || p.GetMetadata().GetGeneration() != 4 {
		t.Fatalf("%v %v", p, err)
	}
	if o, ok := state.Get[*carav1.Override](w.db.Cache, "web"); !ok || o.GetReason() != "the new one burns" || o.GetScope() != api.OverrideSpec {
		t.Errorf("override %v", o)
	}
	r := w.history(t, "web")[0]
	if r.GetActor() != "user/admin" || r.GetReason() != "rolled back to 2 (2b2b2b2): the new one burns" || r.GetOrigin() != nil {
		t.Errorf("revision %v", r)
	}
	if p, err = rollback("1", nil); err != nil || p.GetSpec().GetServices()[0].GetImage() != "nginx:0" {
		t.Errorf("under the override that stands: %v %v", p, err)
	}

	mine := image("mine", "nginx:1")
	fillWith(t, w.house, mine)
	_, err = w.admin.RollbackProject(t.Context(), &carav1.RollbackProjectRequest{Name: "mine", To: "1"})
	if err != nil {
		t.Errorf("a user's own needs no terms: %v", err)
	}
	_, err = w.admin.RollbackProject(t.Context(), &carav1.RollbackProjectRequest{Name: "nobody", To: "1"})
	testproblem.Want(t, err, codes.NotFound, "")
	ci := carav1.NewProjectServiceClient(w.as(t, "ci"))
	_, err = ci.RollbackProject(t.Context(), &carav1.RollbackProjectRequest{Name: "mine", To: "1"})
	testproblem.Want(t, err, codes.PermissionDenied, "")
}

// TestRollbackDoesNotExpire: a spec that has expired is not restored, since that would delete the project.
func TestRollbackDoesNotExpire(t *testing.T) {
	clock := newClock()
	h := newHouse(t, func(c *Config) { c.Now = clock.now })
	admin := carav1.NewProjectServiceClient(h.as(t, "admin"))
	p := web("pr-1")
	p.Spec.ExpireAt = timestamppb.New(clock.now().Add(time.Hour))
	if _, err := admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: p}); err != nil {
		t.Fatal(err)
	}
	p.Spec.ExpireAt = timestamppb.New(clock.now().Add(24 * time.Hour))
	if _, err := admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p}); err != nil {
		t.Fatal(err)
	}
	clock.step(2 * time.Hour)
	_, err := admin.RollbackProject(t.Context(), &carav1.RollbackProjectRequest{Name: "pr-1", To: "1"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleExpired)
}
