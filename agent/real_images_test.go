package agent_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/caravanserai/cara/agent/docker"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

func pulled(ref string) *carav1.ProjectSpec {
	return &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: ref, PullPolicy: api.PullAlways}}}
}

func TestRealRegistryAway(t *testing.T) {
	t.Parallel()
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
	t.Cleanup(func() { discardNow(t, host, ref) })
}

func discardNow(t *testing.T, host, ref string) {
	t.Helper()
	docker, err := testdocker.Client(host)
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	if _, err := docker.ImageRemove(context.WithoutCancel(t.Context()), ref, image.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestRealRegistryAuth pulls with a password, and is rejected without one.
func TestRealRegistryAuth(t *testing.T) {
	t.Parallel()
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

// TestRealRegistryThatStumbles simulates errors of an unhealthy registry: the project waits, reports why, and runs once the
// registry is healthy again.
func TestRealRegistryThatStumbles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault testregistry.Fault
		words string
	}{
		"429":           {testregistry.Fault{Status: 429, RetryAfter: 2 * time.Second}, "toomanyrequests"},
		"500":           {testregistry.Fault{Status: 500}, "500"},
		"503":           {testregistry.Fault{Status: 503}, "503"},
		"garbage":       {testregistry.Fault{Garbage: true}, "registry unavailable"},
		"garbage blobs": {testregistry.Fault{GarbageBlobs: true}, "registry unavailable"},
		"half a blob":   {testregistry.Fault{HangBlobs: true}, "nothing moved for 2s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := testregistry.New(t)
			tag := "stumbles:" + strings.ReplaceAll(name, " ", "-")
			registry.PushPadded(t, testimage.WebV1, tag, 1<<18)
			discard(t, registry.Ref(tag))
			r := newReal(t)
			eng, err := docker.New(docker.Config{Host: r.host, Inactivity: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer eng.Close()
			r.cfg.Engine = eng
			registry.Set(c.fault)
			r.run(t)
			project := fmt.Sprintf("stumbles-%s-%d", strings.ReplaceAll(name, " ", "-"), os.Getpid())
			r.put(project, pulled(registry.Ref(tag)))
			p := r.wait(t, project, func(p *carav1.Project) bool {
				return api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetReason() == "PullBackoff" || phase(api.PhaseFailed)(p)
			})
			why := api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetMessage()
			if p.GetStatus().GetPhase() != api.PhaseScheduled || !strings.Contains(why, c.words) {
				t.Errorf("the project is %s, want Scheduled and a message with %q:\n%s", p.GetStatus().GetPhase(), c.words, why)
			}
			registry.Set(testregistry.Fault{})
			r.wait(t, project, phase(api.PhaseRunning))
			r.equal(t)
			r.stop()
		})
	}
}

// TestRealRegistryThatTrickles sends one byte a second. That is progress, so the pull continues and reports it. It blocks no
// other project, ends immediately when no project waits for it, and leaves nothing behind.
func TestRealRegistryThatTrickles(t *testing.T) {
	t.Parallel()
	registry := testregistry.New(t)
	registry.PushPadded(t, testimage.WebV1, "trickle:1", 1<<18)
	discard(t, registry.Ref("trickle:1"))
	r := newReal(t)
	registry.Set(testregistry.Fault{BytesPerSecond: 1})
	r.run(t)
	slow, other, again := "slow-"+name(t), "other-"+name(t), "again-"+name(t)
	r.put(slow, pulled(registry.Ref("trickle:1")))
	p := r.wait(t, slow, func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady)
		return c.GetReason() == "Pulling" && strings.Contains(c.GetMessage(), "layers")
	})
	t.Log(api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetMessage())
	r.put(other, &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: testimage.WebV1}}})
	r.wait(t, other, phase(api.PhaseRunning))
	r.terminate(slow)
	r.wait(t, slow, gone)
	r.equal(t)
	registry.Set(testregistry.Fault{})
	r.put(again, pulled(registry.Ref("trickle:1")))
	r.wait(t, again, phase(api.PhaseRunning))
	r.equal(t)
}

// TestRealRemadeFromTheSameImage: a container that is recreated uses the same image, even if the tag has moved, also on this
// node.
func TestRealRemadeFromTheSameImage(t *testing.T) {
	t.Parallel()
	registry := testregistry.New(t)
	ref := registry.PushPadded(t, testimage.WebV1, "remade:1", 1000)
	discard(t, ref)
	host, untagged := testdocker.Engine(t), "" // once the tag leads elsewhere
	t.Cleanup(func() {
		if untagged != "" {
			discardNow(t, host, untagged)
		}
	})
	r := newReal(t)
	r.run(t)
	project := name(t)
	r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: ref}}})
	first := r.wait(t, project, phase(api.PhaseRunning)).GetStatus().GetServices()[0]
	docker := r.docker(t)
	was, err := docker.ContainerInspect(t.Context(), first.GetContainerId())
	if err != nil {
		t.Fatal(err)
	}
	untagged = was.Image
	registry.PushPadded(t, testimage.WebV2, "remade:1", 1000)
	if _, err := r.cfg.Engine.PullImage(t.Context(), ref, nil, func(engine.Progress) {}); err != nil {
		t.Fatal(err)
	}
	for _, restart := range []bool{false, true} {
		if restart { // and what the next agent knows is on disk
			r.stop()
		}
		old := r.ids(t)["cara-"+project+".a"]
		if err := r.cfg.Engine.RemoveContainer(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		if restart {
			r.run(t)
		}
		waitUntil(t, func() bool { // an engine lists what is gone, and what is being made, too
			id := r.ids(t)["cara-"+project+".a"]
			now, err := docker.ContainerInspect(t.Context(), id)
			if id == "" || id == old || err != nil || !now.State.Running {
				return false
			}
			if now.Image != was.Image {
				t.Errorf("made anew from %s; it was %s", now.Image, was.Image)
			}
			return true
		})
	}
}
