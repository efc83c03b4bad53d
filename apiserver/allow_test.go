package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// using is a project that uses a Secret, by the field that is named.
func using(name, field, secret string) *carav1.Project {
	p, ref := web(name), &carav1.SecretKeyRef{Name: secret, Key: "password"}
	switch field {
	case "env":
		p.Spec.Services[0].Env = []*carav1.EnvVar{{Name: "A", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: ref}}}
	case "file":
		p.Spec.Services[0].Files = []*carav1.File{{Path: "/etc/a", SecretKeyRef: ref}}
	case "pull":
		p.Spec.ImagePullSecrets = []string{secret}
	}
	return p
}

func at(name, host string) *carav1.Project {
	p := web(name)
	p.Spec.Ingress = []*carav1.Ingress{{Name: "web", Host: host, Target: &carav1.IngressTarget{Service: "web", Port: 80}}}
	return p
}

// allow sets spec.allow of a source.
func allow(t testing.TB, h *Server, source string, spec *carav1.SourceSpec) {
	t.Helper()
	err := h.db.Transact(t.Context(), func(x *state.Tx) error {
		src := &carav1.Source{
			ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: source, Uid: state.NewUID()}, Status: &carav1.SourceStatus{},
		}
		if old, ok := state.Read[*carav1.Source](x, source); ok {
			src = proto.CloneOf(old)
		}
		src.Spec = spec
		src.Metadata.Generation++
		x.Put(src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestASourceHasWhatItsAllowLists(t *testing.T) {
	dir := &carav1.DirSource{Path: "/srv"}
	for name, tt := range map[string]struct {
		allow *carav1.SourceAllow
		p     *carav1.Project
		want  string // empty: created
	}{
		"no Secret by default, env":  {nil, using("web", "env", "prod-db"), `source "a" may not use Secret "prod-db"; add it to spec.allow.secrets of the source`},
		"no Secret by default, file": {nil, using("web", "file", "prod-db"), `may not use Secret "prod-db"`},
		"no Secret by default, pull": {nil, using("web", "pull", "prod-db"), `may not use Secret "prod-db"`},
		"a Secret that is listed":    {&carav1.SourceAllow{Secrets: []string{"prod-*"}}, using("web", "env", "prod-db"), ""},
		"a Secret that is not":       {&carav1.SourceAllow{Secrets: []string{"web-*"}}, using("web", "env", "prod-db"), `may not use Secret "prod-db"`},
		"every host by default":      {nil, at("web", "www.example.org"), ""},
		"a host that is listed":      {&carav1.SourceAllow{Hosts: []string{"*.example.org"}}, at("web", "www.example.org"), ""},
		"a host that is not":         {&carav1.SourceAllow{Hosts: []string{"*.example.org"}}, at("web", "www.bank.example"), `may not claim host "www.bank.example"; add it to spec.allow.hosts`},
		"a short host":               {&carav1.SourceAllow{Hosts: []string{"shop"}}, at("web", "shop"), ""},
		"another short host":         {&carav1.SourceAllow{Hosts: []string{"shop"}}, at("web", "bank"), `may not claim host "bank.dev.example.test"`},
		"a name that is listed":      {&carav1.SourceAllow{Names: []string{"w*"}}, web("web"), ""},
		"a name that is not":         {&carav1.SourceAllow{Names: []string{"shop-*"}}, web("web"), `may not declare project "web"; add it to spec.allow.names`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			allow(t, w.Server, "a", &carav1.SourceSpec{Dir: dir, Allow: tt.allow})
			got := w.applyFor(t, "a", "Always", tt.p)
			if tt.want == "" {
				if got.GetAction() != api.ApplyCreated {
					t.Fatalf("refused: %v", got.GetProblem())
				}
				return
			}
			wantDenied(t, got, tt.want)
			if _, exists := state.Get[*carav1.Project](w.db.Cache, "web"); exists {
				t.Error("the project was created")
			}
		})
	}
}

func wantDenied(t testing.TB, got *carav1.ApplyResult, want string) {
	t.Helper()
	if got.GetAction() != api.ApplyRefused || got.GetProblem().GetTitle() != api.TitleNotAllowed || !strings.Contains(got.GetProblem().GetDetail(), want) {
		t.Errorf("%s %v, want the refusal %q", got.GetAction(), got.GetProblem(), want)
	}
}

// TestEveryWayInAsksTheSource creates a person's project that uses a Secret, and then tries every way to give it to a
// source that may not use it.
func TestEveryWayInAsksTheSource(t *testing.T) {
	const want = `source "team" may not use Secret "prod-db"`
	ways := map[string]func(t *testing.T, w *town) error{
		"adopt by a person": func(t *testing.T, w *town) error {
			_, err := w.admin.AdoptProject(t.Context(), &carav1.AdoptProjectRequest{Name: "web"})
			return err
		},
		"adopt: Always": func(t *testing.T, w *town) error {
			return asError(w.applyFor(t, "team", "Always", using("web", "env", "prod-db")))
		},
		"hand-over": func(t *testing.T, w *town) error {
			w.owned(t, "web", "source/other")
			return asError(w.applyFor(t, "team", "", using("web", "env", "prod-db"), "source/other"))
		},
		"the same again after the source was narrowed": func(t *testing.T, w *town) error {
			w.owned(t, "web", "source/team")
			return asError(w.applyFor(t, "team", "", using("web", "env", "prod-db")))
		},
		"an override that was cleared": func(t *testing.T, w *town) error {
			w.owned(t, "web", "source/team")
			if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Terms: &carav1.OverrideTerms{Reason: "r"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Clear: true}); err != nil {
				t.Fatal(err)
			}
			return asError(w.applyFor(t, "team", "", using("web", "env", "prod-db")))
		},
		"retry": func(t *testing.T, w *town) error {
			w.owned(t, "web", "source/team")
			w.bind(t, "web", "n1")
			if _, err := w.n1.UpdateProjectStatus(t.Context(), w.reportOf(t, "web", api.PhaseFailed)); err != nil {
				t.Fatal(err)
			}
			_, err := w.admin.RetryProject(t.Context(), &carav1.RetryProjectRequest{Name: "web"})
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			if _, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: using("web", "env", "prod-db")}); err != nil {
				t.Fatal(err)
			}
			w.declares(t, "team")
			c := claim("web")
			c.Project = using("web", "env", "prod-db")
			w.publishAs(t, w.source(t, "team"), 2, []*carav1.ClaimSpec{c})
			before := w.get(t, "web")
			err := way(t, w)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			after := w.get(t, "web")
			if !proto.Equal(before.GetSpec(), after.GetSpec()) || after.GetMetadata().GetDeletionTimestamp() != nil {
				t.Errorf("what stands has changed: %v", after)
			}
			allow(t, w.Server, "team", &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}, Allow: &carav1.SourceAllow{Secrets: []string{"prod-db"}}})
			w.owned(t, "web", after.GetMetadata().GetOwner())
			if name != "retry" && name != "hand-over" && name != "an override that was cleared" {
				if err := way(t, w); err != nil {
					t.Errorf("with spec.allow.secrets: %v", err)
				}
			}
		})
	}
}

// owned changes a project's owner, bypassing the rules.
func (w *town) owned(t testing.TB, name, owner string) {
	t.Helper()
	err := w.db.Transact(t.Context(), func(x *state.Tx) error {
		p, _ := state.Read[*carav1.Project](x, name)
		p = proto.CloneOf(p)
		p.Metadata.Owner = owner
		x.Put(p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func asError(r *carav1.ApplyResult) error {
	if r.GetAction() != api.ApplyRefused {
		return nil
	}
	return api.Errorf(codes.Unknown, r.GetProblem().GetTitle(), "%s", r.GetProblem().GetDetail())
}

// TestWhatASourceUsesItselfIsNoProjects: no container gets git credentials or the webhook secret of a source, whoever
// declares it and whatever spec.allow says.
func TestWhatASourceUsesItselfIsNoProjects(t *testing.T) {
	for _, secret := range []string{"git-password", "hook"} {
		t.Run(secret, func(t *testing.T) {
			w := newTown(t)
			allow(t, w.Server, "platform", &carav1.SourceSpec{
				Git:     &carav1.GitSource{Url: "https://git.test/x.git", SecretRef: "git-password"},
				Webhook: &carav1.Webhook{Provider: "GitHub", SecretRef: "hook"},
				Allow:   &carav1.SourceAllow{Secrets: []string{"*"}},
			})
			allow(t, w.Server, "other", &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/d"}, Allow: &carav1.SourceAllow{Secrets: []string{"*"}}})
			haveNothing := "nothing-allowed"
			allow(t, w.Server, haveNothing, &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/d"}})
			want := `source "platform" uses Secret "` + secret + `" for git, webhooks or decryption, so no project may use it`
			for _, field := range []string{"env", "file", "pull"} {
				p := using("web", field, secret)
				wantDenied(t, w.applyFor(t, "platform", "", p), want)
				wantDenied(t, w.applyFor(t, "other", "", p), want)
				wantDenied(t, w.applyFor(t, haveNothing, "", p), want) // and not: add it to spec.allow
				_, created := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: p})
				_, put := w.admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
				for way, err := range map[string]error{"create": created, "put": put} {
					if testproblem.Want(t, err, codes.PermissionDenied, api.TitleNotAllowed); err != nil && !strings.Contains(err.Error(), want) {
						t.Errorf("%s: %v", way, err)
					}
				}
				applied, err := w.person.Apply(t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(p)}})
				if err != nil {
					t.Fatal(err)
				}
				wantDenied(t, applied.GetResults()[0], want)
			}
		})
	}
}

// TestValuesOfASourcesSecretAreWithheld: if a source begins to use a project's Secret, the project keeps running, but no
// node gets the values any more.
func TestValuesOfASourcesSecretAreWithheld(t *testing.T) {
	c := newCluster(t, nil)
	c.secret(t, "shared", "", map[string]string{"password": "p1"})
	c.secret(t, "registry", "registry", map[string]string{"server": "registry.test", "username": "me", "password": "rp"})
	p := using("web", "env", "shared")
	p.Spec.ImagePullSecrets = []string{"registry"}
	if out := c.agents.Values().Assignment(p); len(out.GetSecrets()) != 1 || len(out.GetRegistryAuth()) != 1 {
		t.Fatalf("assignment %v", out)
	}
	for _, ref := range []string{"shared", "registry"} {
		allow(t, c.Server, "platform", &carav1.SourceSpec{
			Git:     &carav1.GitSource{Url: "https://git.test/x.git", SecretRef: "shared"},
			Webhook: &carav1.Webhook{Provider: "GitHub", SecretRef: ref},
		})
	}
	if out := c.agents.Values().Assignment(p); len(out.GetSecrets()) != 0 || len(out.GetRegistryAuth()) != 0 {
		t.Errorf("a node is told %v %v", out.GetSecrets(), out.GetRegistryAuth())
	}
}

func TestASourceTakesNoSecretOfAProject(t *testing.T) {
	w := newTown(t)
	if _, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: using("web", "env", "db")}); err != nil {
		t.Fatal(err)
	}
	sources := carav1.NewSourceServiceClient(w.as(t, "admin"))
	put := func(secret string) error {
		_, err := sources.PutSource(t.Context(), &carav1.PutSourceRequest{Source: &carav1.Source{
			ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform"},
			Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://git.test/x.git", SecretRef: secret}},
		}})
		return err
	}
	err := put("db")
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	if want := `project "web" uses Secret "db", so source "platform" cannot use it`; !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %s", err, want)
	}
	if err := put("git"); err != nil {
		t.Error(err)
	}
}

func TestReservedHosts(t *testing.T) {
	w := &town{house: newHouse(t, func(c *Config) {
		c.ReservedHosts = []string{"*.bank.example", "admin"}
		c.ownHosts = []string{"localhost", "cara.example.org"}
	})}
	w.admin, w.apply = carav1.NewProjectServiceClient(w.as(t, "admin")), carav1.NewApplyServiceClient(w.loop(t, "reconciler"))
	for host, reserved := range map[string]bool{
		"www.bank.example": true, "WWW.Bank.Example.": true, "bank.example": false, "admin": true, "admin.dev.example.test": true,
		"cara.example.org": true, "Cara.Example.Org": true, "localhost": false, "www.example.org": false,
	} {
		t.Run(host, func(t *testing.T) {
			name := "p-" + strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(host, "."), ".", "-"))
			p := at(name, host)
			got := w.applyFor(t, "a", "", p)
			_, err := w.admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: at(name+"-2", host)})
			if reserved {
				wantDenied(t, got, "is reserved")
				testproblem.Want(t, err, codes.PermissionDenied, api.TitleNotAllowed)
			} else if got.GetAction() == api.ApplyRefused {
				t.Errorf("refused: %v", got.GetProblem())
			}
		})
	}
	if err := (Config{ReservedHosts: []string{"https://x"}, Store: w.db.Store, Authenticator: names{}}).Validate(); err == nil {
		t.Error("a reserved host that is not a pattern was accepted")
	}
}

func TestATokensHosts(t *testing.T) {
	template := api.HostTemplate{BaseDomain: "example.test", Environment: "dev"}
	for name, tt := range map[string]struct {
		actor identity.Actor
		host  string
		ok    bool
	}{
		"no bound":                            {identity.Actor{}, "www.bank.example", true},
		"a prefix bounds hosts too":           {identity.Actor{NamePrefixes: []string{"pr-"}}, "www.bank.example", false},
		"a host with the prefix":              {identity.Actor{NamePrefixes: []string{"pr-"}}, "pr-1.dev.example.test", true},
		"the prefix in another's domain":      {identity.Actor{NamePrefixes: []string{"pr-"}}, "pr-1.bank.example", false},
		"patterns":                            {identity.Actor{Hosts: []string{"*.team.example"}}, "a.team.example", true},
		"outside of the patterns":             {identity.Actor{Hosts: []string{"*.team.example"}}, "www.bank.example", false},
		"patterns in the place of the prefix": {identity.Actor{NamePrefixes: []string{"pr-"}, Hosts: []string{"*.team.example"}}, "pr-1.dev.example.test", false},
		"everything, said so":                 {identity.Actor{NamePrefixes: []string{"pr-"}, Hosts: []string{"*"}}, "www.bank.example", true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tt.actor.MayClaim([]string{tt.host}, template); (err == nil) != tt.ok {
				t.Error(err)
			}
		})
	}
	w := newTown(t)
	ci := carav1.NewProjectServiceClient(w.as(t, "ci"))
	_, err := ci.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: at("pr-1", "www.bank.example")})
	testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)
	if want := "--host www.bank.example"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %s", err, want)
	}
	p, err := ci.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: at("pr-1", "pr-1")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ci.PutProject(t.Context(), &carav1.PutProjectRequest{Project: at("pr-1", "www.bank.example")})
	testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)
	w.owned(t, "pr-1", "source/team")
	if _, err := ci.ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: p.GetMetadata().GetName()}); err != nil {
		t.Error(err)
	}
}

// TestReleaseAsksWhoTakesIt: a released project belongs to the caller, so the caller must be allowed to have it.
func TestReleaseAsksWhoTakesIt(t *testing.T) {
	w := newTown(t)
	allow(t, w.Server, "team", &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}, Allow: &carav1.SourceAllow{Secrets: []string{"prod-db"}}})
	if got := w.applyFor(t, "team", "", using("pr-1", "env", "prod-db")); got.GetAction() != api.ApplyCreated {
		t.Fatal(got)
	}
	_, err := carav1.NewProjectServiceClient(w.as(t, "ci")).ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: "pr-1"})
	testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)
	if _, err := w.admin.ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: "pr-1"}); err != nil {
		t.Error(err)
	}
}

// TestAClaimThatIsNotAllowedHoldsNoPruneUp: declaring another source's project does not prevent its prune.
func TestAClaimThatIsNotAllowedHoldsNoPruneUp(t *testing.T) {
	for name, tt := range map[string]struct {
		allow *carav1.SourceAllow
		gone  bool
	}{"allowed": {nil, false}, "not allowed": {&carav1.SourceAllow{Names: []string{"shop-*"}}, true}} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			w.declares(t, "team", "web")
			w.declares(t, "owner")
			if got := w.applyFor(t, "owner", "", web("web")); got.GetAction() != api.ApplyCreated {
				t.Fatal(got)
			}
			allow(t, w.Server, "team", &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}, Allow: tt.allow})
			_, err := w.reconciler.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "web", Owner: "source/owner", Reason: api.ReasonPruned})
			if (err == nil) != tt.gone {
				t.Errorf("prune: %v", err)
			}
		})
	}
}
