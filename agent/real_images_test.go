package agent_test

import (
	"context"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/testdocker"
	"github.com/caravanserai/cara/internal/testimage"
	"github.com/caravanserai/cara/internal/testregistry"
)

func pulled(ref string) *carav1.ProjectSpec {
	return &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: ref, PullPolicy: api.PullAlways}}}
}

func TestRealRegistryAway(t *testing.T) {
	registry := testregistry.New(t)
	registry.Push(t, testimage.WebV1, "app:1")
	discard(t, registry.Ref("app:1"))
	r := newReal(t)
	restore := registry.Outage(t)
	r.run(t)
	project := name(t)
	r.put(project, pulled(registry.Ref("app:1")))
	p := r.wait(t, project, func(p *carav1.Project) bool {
		return api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetReason() == "PullBackoff"
	})
	if p.Status.Phase != api.PhaseScheduled {
		t.Errorf("phase %s", p.Status.Phase)
	}
	t.Log(api.FindCondition(p.Status.Conditions, api.CondImagesReady).GetMessage())
	restore()
	p = r.wait(t, project, phase(api.PhaseRunning))
	if !strings.Contains(p.Status.Services[0].ImageDigest, "@sha256:") {
		t.Errorf("digest %q", p.Status.Services[0].ImageDigest)
	}
}

// discard takes an image out of the engine once the test's containers are gone: call it before newReal.
func discard(t *testing.T, ref string) {
	t.Helper()
	host := testdocker.Engine(t)
	t.Cleanup(func() {
		docker, err := testdocker.Client(host)
		if err != nil {
			t.Fatal(err)
		}
		defer docker.Close()
		if _, err := docker.ImageRemove(context.WithoutCancel(t.Context()), ref, image.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// TestRealRegistryAuth pulls with a password, and is refused without.
func TestRealRegistryAuth(t *testing.T) {
	registry := testregistry.New(t)
	registry.Push(t, testimage.WebV1, "closed:1")
	discard(t, registry.Ref("closed:1"))
	r := newReal(t)
	registry.Login("shop", "hunter2")
	r.run(t)
	project := name(t)
	r.put(project, pulled(registry.Ref("closed:1")))
	p := r.wait(t, project, phase(api.PhaseFailed))
	if c := api.FindCondition(p.Status.Conditions, api.CondPhase); c.GetReason() != "ImagePullFailed" || strings.Contains(c.GetMessage(), "hunter2") {
		t.Errorf("without a password: %v", c)
	}
	t.Log(api.FindCondition(p.Status.Conditions, api.CondPhase).GetMessage())
	r.mu.Lock()
	r.auth = map[string]*carav1.RegistryAuth{registry.Addr(): {Username: "shop", Password: "hunter2"}}
	r.mu.Unlock()
	r.put(project, pulled(registry.Ref("closed:1")))
	r.wait(t, project, phase(api.PhaseRunning))
}

// TestRealRegistryThatStumbles answers with what registries answer when they are not well.
func TestRealRegistryThatStumbles(t *testing.T) {
	for what, status := range map[string]int{"500": 500, "429": 429, "503": 503} {
		t.Run(what, func(t *testing.T) {
			registry := testregistry.New(t)
			registry.Push(t, testimage.WebV1, "app:"+what)
			discard(t, registry.Ref("app:"+what))
			r := newReal(t)
			registry.Set(testregistry.Fault{Status: status})
			r.run(t)
			project := name(t)
			r.put(project, pulled(registry.Ref("app:"+what)))
			r.wait(t, project, func(p *carav1.Project) bool {
				return api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetReason() == "PullBackoff"
			})
			registry.Set(testregistry.Fault{})
			r.wait(t, project, phase(api.PhaseRunning))
		})
	}
}
