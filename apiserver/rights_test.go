package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// TestAPrefixBoundsSecretsToo: a caller that may only change `pr-...` may only use secrets `pr-...` in containers.
func TestAPrefixBoundsSecretsToo(t *testing.T) {
	ref := &carav1.SecretKeyRef{Name: "db", Key: "password"}
	uses := map[string]func(*carav1.Project){
		"env": func(p *carav1.Project) {
			p.Spec.Services[0].Env = []*carav1.EnvVar{{Name: "A", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: ref}}}
		},
		"a file": func(p *carav1.Project) {
			p.Spec.Services[0].Files = []*carav1.File{{Path: "/etc/a", SecretKeyRef: ref}}
		},
		"a pull secret": func(p *carav1.Project) { p.Spec.ImagePullSecrets = []string{"db"} },
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			projects, apply := carav1.NewProjectServiceClient(h.as(t, "ci")), carav1.NewApplyServiceClient(h.as(t, "ci"))
			p := web("pr-1")
			if _, err := projects.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: p}); err != nil {
				t.Fatal(err)
			}
			ref.Name = "db"
			use(p)
			_, err := projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
			testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)
			if want := `secrets whose names begin with "pr-", and project "pr-1" names secret "db"`; !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %s", err, want)
			}
			fresh := web("pr-2")
			use(fresh)
			for _, dry := range []bool{true, false} {
				out, err := apply.Apply(t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(fresh)}, DryRun: dry})
				if err != nil || out.GetResults()[0].GetProblem().GetTitle() != api.TitleForbidden {
					t.Errorf("apply (dry %v): %v %v", dry, out, err)
				}
			}
			if _, err := carav1.NewProjectServiceClient(h.as(t, "admin")).PutProject(t.Context(), &carav1.PutProjectRequest{Project: p}); err != nil {
				t.Errorf("who has no prefix is not bounded: %v", err)
			}
			ref.Name = "pr-db"
			if name == "a pull secret" {
				p.Spec.ImagePullSecrets = []string{"pr-db"}
			}
			if _, err := projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p}); err != nil {
				t.Errorf("a secret with the prefix: %v", err)
			}
		})
	}
}
