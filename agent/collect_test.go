package agent_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// alwaysFull makes the collector remove every image that may be removed.
func alwaysFull(c *agent.Config) {
	c.Limits, c.CollectEvery = agent.Limits{CollectAbove: 1e-9}, 20*time.Millisecond
}

func TestImagesAreCollected(t *testing.T) {
	f := newFaked(t)
	alwaysFull(&f.cfg)
	for _, ref := range []string{"new:1", "new:2"} {
		f.engine.Remote(ref, nil)
	}
	f.engine.Remote("web", nil) // it is there: a pull brings nothing
	spec := services("new:1", "new:2", "web")
	spec.Services[2].PullPolicy = api.PullAlways
	f.run(t)
	f.put("p", spec)
	f.wait(t, "p", phase(api.PhaseRunning))
	f.stop() // the book is on disk
	f.run(t)
	f.put("p", services("new:2", "web"))
	there := func(ref string) bool {
		_, err := f.engine.InspectImage(t.Context(), ref)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	waitUntil(t, func() bool { return !there("new:1") })
	waitUntil(t, func() bool { return f.told("ImagesCollected") > 0 })
	looks := f.engine.Calls("ListImages")
	waitUntil(t, func() bool { return f.engine.Calls("ListImages") > looks+2 })
	for _, ref := range []string{"new:2", "web", "web:2", "job"} {
		if !there(ref) {
			t.Errorf("%s is gone", ref)
		}
	}
}

func TestRealImagesAreCollected(t *testing.T) {
	t.Parallel()
	registry := testregistry.New(t)
	registry.PushPadded(t, testimage.WebV1, "brought:1", 1<<10) // an image that the engine has not seen
	registry.Push(t, testimage.WebV1, "known:1")                // a new name of one that was there before
	discard(t, registry.Ref("known:1"))
	r := newReal(t)
	alwaysFull(&r.cfg)
	r.run(t)
	project := name(t)
	there := func(ref string) bool {
		_, err := r.cfg.Engine.InspectImage(t.Context(), ref)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	r.put(project, pulled(registry.Ref("brought:1")))
	r.wait(t, project, phase(api.PhaseRunning))
	if !there(registry.Ref("brought:1")) {
		t.Error("an image in use was removed")
	}
	r.put(project, pulled(registry.Ref("known:1")))
	r.wait(t, project, phase(api.PhaseRunning))
	r.terminate(project)
	r.wait(t, project, gone)
	waitUntil(t, func() bool { return !there(registry.Ref("brought:1")) })
	if !there(registry.Ref("known:1")) || !there(testimage.WebV1) {
		t.Error("an image that was there before was removed")
	}
}
