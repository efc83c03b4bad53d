package ui_test

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/objects"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// owned is a project of a source that exists.
func (s *site) owned(t testing.TB, name string) *carav1.Project {
	t.Helper()
	s.put(t, node("n1"), &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform", Uid: "uid-platform", Generation: 1},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}}, Status: &carav1.SourceStatus{Snapshot: &carav1.Snapshot{Revision: "9a0b1c2d3e4f"}},
	})
	p := project(name)
	p.Metadata.Owner = api.PrefixSource + "platform"
	s.put(t, p)
	return p
}

func (s *site) get1(t testing.TB, name string) *carav1.Project {
	t.Helper()
	p, err := carav1.NewProjectServiceClient(s.conn(t, s.token)).GetProject(t.Context(), &carav1.GetRequest{Name: name})
	must(t, err)
	return p
}

// A person overrides git: the page says what will happen, asks why and for how long, and shows the command.
func TestOverride(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.owned(t, "shop")
	tab := s.tab(t, b, s.token)
	must(t, tab.Go(s.url+"/ui/projects/shop"), tab.Click(`a[href="/ui/do/override/shop"]`), tab.Shows("h1", "Override git"))
	must(t, tab.Shows("main", "source platform does not change or delete this project"))
	must(t, tab.Type("#f-reason", "it's leaking"), tab.Shows("#command", `caractrl override shop --reason 'it'\''s leaking' --for 2h`))
	must(t, tab.Click("main button.main"), tab.Shows(".done", "Git does not change this project"), tab.Shows("main", "it's leaking"))
	overrides, err := carav1.NewProjectServiceClient(s.conn(t, s.token)).ListOverrides(t.Context(), &carav1.ListOverridesRequest{})
	must(t, err)
	if o := overrides.GetItems(); len(o) != 1 || o[0].GetReason() != "it's leaking" || o[0].GetUntil() == nil || o[0].GetActor() != "user/admin" {
		t.Errorf("overrides: %v, want one of user/admin with the reason and an end", o)
	}
	must(t, tab.Click(`a[href="/ui/do/clear-override/shop"]`), tab.Click("main button.main"), tab.Shows(".done", "Git decides"), tab.Until(`!document.querySelector("main").textContent.includes("leaking'")`))
}

// An action decides about what the person saw. When the object has changed, nothing is done.
func TestStaleViewChangesNothing(t *testing.T) {
	s := newSite(t)
	p := s.owned(t, "shop")
	in := s.login(t, s.token)
	form := s.question(t, in, "/ui/do/delete/shop")
	form.Set("reason", "old")
	form.Set("for", "2h")
	newer := project("shop")
	newer.Metadata.Owner, newer.Metadata.Generation = p.GetMetadata().GetOwner(), 2
	s.put(t, newer)
	resp := s.post(t, in, "/ui/do/delete/shop", form, nil)
	if body := read(t, resp); resp.StatusCode != http.StatusConflict || !strings.Contains(body, "has changed since you looked") || !strings.Contains(body, `value="old"`) {
		t.Errorf("a stale form: %s, want 409, the reason, and what was typed", resp.Status)
	}
	if phase := s.get1(t, "shop").GetStatus().GetPhase(); phase != api.PhaseRunning {
		t.Errorf("the project is %s, want Running", phase)
	}
}

// The server itself compares what was seen, in the transaction of each change of a project.
func TestChangeOfWhatWasSeen(t *testing.T) {
	s := newSite(t)
	p := s.owned(t, "shop")
	projects := carav1.NewProjectServiceClient(s.conn(t, s.token))
	terms := &carav1.OverrideTerms{Reason: "test", UntilNextChange: true}
	for name, call := range map[string]func(context.Context) error{
		"restart": func(ctx context.Context) error {
			_, err := projects.RestartProject(ctx, &carav1.RestartProjectRequest{Name: "shop"})
			return err
		},
		"override": func(ctx context.Context) error {
			_, err := projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: "shop", Terms: terms})
			return err
		},
		"delete": func(ctx context.Context) error {
			_, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: "shop", Override: terms})
			return err
		},
	} {
		err := call(metadata.AppendToOutgoingContext(t.Context(), objects.HeaderIfSeen, "older"))
		if !api.IsConflict(err) {
			t.Errorf("%s of what was seen before: %v, want a conflict", name, err)
		}
	}
	if _, err := projects.RestartProject(metadata.AppendToOutgoingContext(t.Context(), objects.HeaderIfSeen, objects.SeenOf(p)), &carav1.RestartProjectRequest{Name: "shop"}); err != nil {
		t.Errorf("restart of what is there: %v", err)
	}
}

// A form that is sent twice acts once.
func TestDoubleSubmit(t *testing.T) {
	s := newSite(t)
	s.put(t, node("n1"), project("shop"))
	in := s.login(t, s.token)
	form := s.question(t, in, "/ui/do/restart/shop")
	var tokens []string
	for range 2 {
		if resp := s.post(t, in, "/ui/do/restart/shop", form, nil); resp.StatusCode != http.StatusSeeOther {
			t.Fatalf("restart: %s", resp.Status)
		}
		tokens = append(tokens, s.get1(t, "shop").GetStatus().GetRestartToken())
	}
	if tokens[0] == "" || tokens[0] != tokens[1] {
		t.Errorf("restart tokens %q, want the same twice", tokens)
	}
	// Looking again allows another restart.
	if resp := s.post(t, in, "/ui/do/restart/shop", s.question(t, in, "/ui/do/restart/shop"), nil); resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("another restart: %s", resp.Status)
	}
	if again := s.get1(t, "shop").GetStatus().GetRestartToken(); again == tokens[0] {
		t.Error("another restart did nothing")
	}
}

var hidden = regexp.MustCompile(`name="(key|seen)" value="([^"]*)"`)

// question reads the hidden fields of an action's form.
func (s *site) question(t testing.TB, c *http.Client, path string) url.Values {
	t.Helper()
	resp := s.get(t, c, path, nil)
	body := read(t, resp)
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(body, -1) {
		form.Set(m[1], m[2])
	}
	if resp.StatusCode != http.StatusOK || len(form) != 2 {
		t.Fatalf("%s: %s with the fields %v\n%s", path, resp.Status, form, body)
	}
	return form
}

// The page offers only what the person may do, and refuses the rest.
func TestRights(t *testing.T) {
	s := newSite(t)
	s.owned(t, "shop")
	s.put(t, project("pr-1"))
	for name, tt := range map[string]struct {
		role, prefix string
		shop, pr     bool
		node         bool
		tokens       int
	}{
		"viewer":   {role: api.RoleViewer, tokens: http.StatusForbidden},
		"deployer": {role: api.RoleDeployer, prefix: "pr-", pr: true, tokens: http.StatusForbidden},
		"admin":    {role: api.RoleAdmin, shop: true, pr: true, node: true, tokens: http.StatusOK},
	} {
		in := s.login(t, s.newToken(t, "t-"+name, tt.role, tt.prefix))
		for path, may := range map[string]bool{"projects/shop": tt.shop, "projects/pr-1": tt.pr, "nodes/n1": tt.node} {
			if offers := strings.Contains(read(t, s.get(t, in, "/ui/"+path, nil)), `href="/ui/do/`); offers != may {
				t.Errorf("%s: %s offers actions: %v, want %v", name, path, offers, may)
			}
		}
		for path, may := range map[string]bool{"restart/shop": tt.shop, "restart/pr-1": tt.pr, "cordon/n1": tt.node} {
			if code := s.post(t, in, "/ui/do/"+path, url.Values{"key": {"k-" + path}}, nil).StatusCode; (code != http.StatusForbidden) != may {
				t.Errorf("%s: POST %s is %d, may: %v", name, path, code, may)
			}
		}
		if undo := strings.Contains(read(t, s.get(t, in, "/ui/nodes/n1?done=cordon", nil)), ">Undo</a>"); undo != tt.node {
			t.Errorf("%s: the page offers to take a cordon back: %v, want %v", name, undo, tt.node)
		}
		if code := s.get(t, in, "/ui/tokens", nil).StatusCode; code != tt.tokens {
			t.Errorf("%s: the tokens are %d, want %d", name, code, tt.tokens)
		}
		if phase := s.get1(t, "shop").GetStatus().GetRestartToken(); phase != "" {
			t.Error("a form without what was seen restarted the project")
		}
	}
}

// Extending, cordoning and deleting from the page.
func TestOtherActions(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	p := project("pr-42")
	end := timestamppb.New(timestamppb.Now().AsTime().Add(3600e9))
	p.Spec.ExpireAt, p.Status.ExpireAt = end, end
	s.put(t, node("n1"), p)
	tab := s.tab(t, b, s.token)
	must(t, tab.Go(s.url+"/ui/previews"), tab.Click("#p-pr-42 a.button"), tab.Shows("#command", "caractrl extend pr-42 24h"), tab.Click("main button.main"), tab.Shows(".done", "longer"))
	if by := s.get1(t, "pr-42").GetStatus().GetExpireAt().AsTime().Sub(end.AsTime()); by.Hours() < 23 {
		t.Errorf("it lives %s longer, want 24h", by)
	}
	must(t, tab.Go(s.url+"/ui/nodes/n1"), tab.Click(`a[href="/ui/do/cordon/n1"]`), tab.Click("main button.main"), tab.Shows(".done", "no new projects"), tab.Shows("h1", "cordoned"))
	must(t, tab.Click(`.done a[href="/ui/do/uncordon/n1"]`), tab.Click("main button.main"), tab.Shows(".done", "again"), tab.Click(`.done a[href="/ui/do/cordon/n1"]`), tab.Click("main button.main"), tab.Shows("h1", "cordoned"))
	must(t, tab.Click(`a[href="/ui/do/drain/n1"]`), tab.Shows("main", "pr-42"), tab.Click("main button.main"), tab.Shows(".done", "drained"))
	must(t, tab.Click(`a[href="/ui/do/uncordon/n1"]`), tab.Click("main button.main"), tab.Shows(".done", "again"))
	must(t, tab.Go(s.url+"/ui/projects/pr-42"), tab.Click(`a[href="/ui/do/delete/pr-42"]`), tab.Shows("main", "All containers of pr-42"), tab.Click("main button.main"), tab.Shows("h1", "Terminating"))
}

// A rollback shows which fields change, and restores the earlier spec.
func TestRollback(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, node("n1"))
	projects := carav1.NewProjectServiceClient(s.conn(t, s.token))
	for _, image := range []string{"registry.example/app:1", "registry.example/app:2"} {
		p := project("shop")
		p.Status, p.Metadata = nil, &carav1.ObjectMeta{Name: "shop"}
		p.Spec.Services[0].Image = image
		_, err := projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
		must(t, err)
	}
	tab := s.tab(t, b, s.token)
	must(t, tab.Go(s.url+"/ui/projects/shop"), tab.Click(`a[href="/ui/do/rollback/shop"]`), tab.Shows("table.diff", "app:1"), tab.Shows("#command", "caractrl rollback shop --to 1"))
	must(t, tab.Click("main button.main"), tab.Shows(".done", "restored"), tab.Shows("#s-app", "app:1"))
	if image := s.get1(t, "shop").GetSpec().GetServices()[0].GetImage(); image != "registry.example/app:1" {
		t.Errorf("the image is %s", image)
	}
}
