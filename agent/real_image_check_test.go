package agent_test

import (
	"context"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// imageWith makes an image of busybox with these lines of a Dockerfile, and returns its reference.
func (r *onDocker) imageWith(t *testing.T, lines ...string) string {
	t.Helper()
	docker := r.docker(t)
	c, err := docker.ContainerCreate(t.Context(), &container.Config{Image: testimage.Busybox, Labels: r.labels}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	ref := "cara-fixtures/" + uniqueName("made") + ":v1"
	if _, err := docker.ContainerCommit(t.Context(), c.ID, container.CommitOptions{Reference: ref, Changes: lines}); err != nil {
		t.Fatal(err)
	}
	if err := docker.ContainerRemove(t.Context(), c.ID, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := docker.ImageRemove(context.WithoutCancel(t.Context()), ref, image.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	return ref
}

// TestRealImageHealthcheck: app waits for db to be healthy, whose image says how to check that, or does not.
func TestRealImageHealthcheck(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	checked := r.imageWith(t, `HEALTHCHECK --interval=1s --retries=2 CMD test -e /tmp/ready`)
	r.run(t)
	spec := func(image string) *carav1.ProjectSpec {
		return &carav1.ProjectSpec{Services: []*carav1.Service{
			{Name: "db", Image: image, Command: []string{"sleep", "1000"}, StopSignal: "SIGKILL"},
			{Name: "app", Image: testimage.WebV1, DependsOn: []*carav1.Dependency{{Service: "db", Condition: api.DependsHealthy}}},
		}}
	}
	t.Run("it fails", func(t *testing.T) {
		project := uniqueName("sick")
		r.put(project, spec(checked))
		p := r.wait(t, project, phase(api.PhaseFailed))
		if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase); c.GetReason() != "HealthCheckFailed" || !strings.Contains(c.GetMessage(), "test -e /tmp/ready") {
			t.Errorf("condition %v", c)
		}
		if at := p.GetStatus().GetServices()[1].GetStartedAt(); at != nil {
			t.Errorf("app was started at %s", at.AsTime())
		}
	})
	t.Run("it passes", func(t *testing.T) {
		project := uniqueName("well")
		healthy := spec(checked)
		healthy.Services[0].Command = []string{"sh", "-c", "touch /tmp/ready; exec sleep 1000"}
		r.put(project, healthy)
		p := r.wait(t, project, phase(api.PhaseRunning))
		if db := p.GetStatus().GetServices()[0]; db.GetHealth() != api.HealthHealthy {
			t.Errorf("db is %v", db)
		}
	})
	t.Run("there is none", func(t *testing.T) {
		project := uniqueName("unknown")
		r.put(project, spec(testimage.Busybox))
		p := r.wait(t, project, phase(api.PhaseFailed))
		if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase); c.GetReason() != "NoHealthcheck" || !strings.Contains(c.GetMessage(), "add a healthcheck to db") {
			t.Errorf("condition %v", c)
		}
	})
}
