package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/enginetest/fake"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// newContainers is a project with two running containers and a stopped one.
func newContainers(t *testing.T) (*EngineContainers, *fake.Engine, func() []string) {
	t.Helper()
	e := fake.New("x:1")
	c := &EngineContainers{Engine: e, Project: "shop", Labels: map[string]string{api.LabelProject: "shop"}, Records: t.TempDir()}
	if _, err := e.CreateNetwork(t.Context(), "n", c.Labels, 3); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, name := range []string{"a", "b", "stopped"} {
		id, err := e.CreateContainer(t.Context(), engine.ContainerSpec{
			Name: name, Labels: map[string]string{api.LabelProject: "shop", api.LabelService: name}, Network: "n", Service: &carav1.Service{Name: name, Image: "x:1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if name != "stopped" {
			if err := e.StartContainer(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		ids = append(ids, id)
	}
	return c, e, func() (states []string) {
		t.Helper()
		for _, id := range ids {
			found, err := e.InspectContainer(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, found.State)
		}
		return states
	}
}

func TestPauseAndResume(t *testing.T) {
	c, _, states := newContainers(t)
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := states(), []string{"paused", "paused", "created"}; !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	again := *c // as the next agent after a crash finds them
	projects, err := Paused(c.Records)
	if err != nil || !slices.Equal(projects, []string{"shop"}) {
		t.Fatalf("projects %v, %v", projects, err)
	}
	if err := again.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := states(), []string{"running", "running", "created"}; !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	if err := again.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	if projects, err := Paused(c.Records); len(projects) > 0 || err != nil {
		t.Errorf("projects %v, %v", projects, err)
	}
}

// TestResumeTriesEveryContainer: the record stays until the last container runs.
func TestResumeTriesEveryContainer(t *testing.T) {
	c, e, states := newContainers(t)
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	broken := *c
	broken.Engine = &oneRefused{Engine: e}
	if err := broken.Resume(t.Context()); !errors.Is(err, errRefused) {
		t.Errorf("error %v", err)
	}
	got := states()
	slices.Sort(got)
	if want := []string{"created", "paused", "running"}; !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	if _, err := os.Stat(filepath.Join(c.Records, "shop.paused")); err != nil {
		t.Error(err)
	}
	if err := c.Resume(t.Context()); err != nil {
		t.Error(err)
	}
}

var errRefused = errors.New("refused by the test")

// oneRefused is an engine that does not resume the first container that was listed.
type oneRefused struct {
	engine.Engine
}

func (o *oneRefused) UnpauseContainer(ctx context.Context, id string) error {
	found, err := o.InspectContainer(ctx, id)
	if err != nil {
		return err
	}
	if found.Name == "a" {
		return errRefused
	}
	return o.Engine.UnpauseContainer(ctx, id)
}
