package apiserver

import (
	"context"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestEverythingIsWritableAfterARestart: at its start a server reads the same revisions as the store has, also for objects
// without metadata, such as a claim on a host. Otherwise a write that conflicts would never succeed.
func TestEverythingIsWritableAfterARestart(t *testing.T) {
	before := newHouse(t, nil)
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: "shop"},
		Spec: &carav1.ProjectSpec{
			Services: []*carav1.Service{{Name: "web", Image: "web:v1"}},
			Ingress:  []*carav1.Ingress{{Name: "web", Host: "shop", Target: &carav1.IngressTarget{Service: "web", Port: 80}}},
		},
	}
	if _, err := carav1.NewProjectServiceClient(before.as(t, "admin")).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: p}); err != nil {
		t.Fatal(err)
	}
	if err := before.stop(); err != nil {
		t.Fatal(err)
	}
	after := newHouse(t, func(c *Config) { c.Store = before.cfg.Store })
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	p.Spec.Services[0].Image = "web:v2"
	client := carav1.NewProjectServiceClient(after.as(t, "admin"))
	if _, err := client.PutProject(ctx, &carav1.PutProjectRequest{Project: p}); err != nil {
		t.Error(err)
	}
	if _, err := client.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: "shop"}); err != nil {
		t.Error(err)
	}
}
