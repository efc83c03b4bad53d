package image

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// registries are an engine that pulls at the pace of each image's registry, in bytes a second. Without a pace a pull ends at once.
type registries struct {
	engine.Images
	pace   map[string]int64
	queued map[string]bool // images that the engine itself does not begin to load
}

func (r *registries) ListImages(context.Context) ([]engine.StoredImage, error) { return nil, nil }

func (r *registries) PullImage(ctx context.Context, ref string, _ *carav1.RegistryAuth, progress func(engine.Progress)) (engine.Image, error) {
	const total = 100 << 20
	pace, slow := r.pace[registryOf(ref)]
	for done := int64(0); slow && done < total; done += pace {
		p := engine.Progress{Layers: 1, Done: done, Total: total, Loading: 1}
		if r.queued[ref] {
			p = engine.Progress{Layers: 1, Queued: 1}
		}
		progress(p)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return engine.Image{}, ctx.Err()
		}
	}
	return engine.Image{ID: ref}, nil
}

// pulling runs a puller with three slots, which asks for the images of the projects.
func pulling(t *testing.T, eng *registries, images map[string][]string) *Puller {
	p := NewPuller(eng, NewBook(t.TempDir()), slog.New(slog.DiscardHandler), 3, func(string) {})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for project, refs := range images {
		for _, ref := range refs {
			p.Ask(ctx, project, ref, nil)
			synctest.Wait()
		}
	}
	return p
}

func stateOf(p *Puller, project, ref string) Pull {
	pull, _ := p.State(project, ref, nil)
	return pull
}

// TestASlowRegistryLetsOthersPull: a push that names images of a registry that sends almost nothing delays nobody else for long.
func TestASlowRegistryLetsOthersPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := []string{"slow.example/a:1", "slow.example/b:1", "slow.example/c:1", "slow.example/d:1"}
		p := pulling(t, &registries{pace: map[string]int64{"slow.example": 2000}}, map[string][]string{"hostile": slow})
		p.Ask(t.Context(), "shop", "good.example/shop:1", nil)
		<-time.After(paceWindow + 2*checkEvery)
		synctest.Wait()
		if pull := stateOf(p, "shop", "good.example/shop:1"); !pull.Done || pull.Err != nil {
			t.Fatalf("the image of the other project: %+v", pull)
		}
		stopped := 0
		for _, ref := range slow {
			if pull := stateOf(p, "hostile", ref); pull.Done {
				stopped++
				if !errors.Is(pull.Err, engine.ErrRegistry) || !strings.Contains(pull.Err.Error(), "while other images waited") {
					t.Errorf("%s: %v", ref, pull.Err)
				}
			}
		}
		if stopped != 1 {
			t.Errorf("%d slow pulls were stopped for one that waited", stopped)
		}
		<-time.After(10 * paceWindow)
		synctest.Wait()
		if pull := stateOf(p, "hostile", slow[3]); pull.Done {
			t.Errorf("a pull of a slow registry was stopped for others of it: %v", pull.Err)
		}
	})
}

// TestALayerThatTheEngineQueues: with an engine that does few downloads at once, a pull can have a slot and wait all the same.
func TestALayerThatTheEngineQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eng := &registries{pace: map[string]int64{"slow.example": 2000, "good.example": 1}, queued: map[string]bool{"good.example/shop:1": true}}
		p := pulling(t, eng, map[string][]string{"hostile": {"slow.example/a:1"}, "shop": {"good.example/shop:1"}})
		<-time.After(paceWindow + 2*checkEvery)
		synctest.Wait()
		if pull := stateOf(p, "hostile", "slow.example/a:1"); !pull.Done {
			t.Error("the slow pull was not stopped")
		}
		if pull := stateOf(p, "shop", "good.example/shop:1"); pull.Done {
			t.Errorf("the pull that waits was stopped: %v", pull.Err)
		}
	})
}

// TestAPullThatIsNotSlowIsNotStopped: others wait for it, however long it takes.
func TestAPullThatIsNotSlowIsNotStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := []string{"large.example/a:1", "large.example/b:1", "large.example/c:1"}
		p := pulling(t, &registries{pace: map[string]int64{"large.example": 2 * slowPace}}, map[string][]string{"large": large})
		p.Ask(t.Context(), "shop", "good.example/shop:1", nil)
		<-time.After(time.Hour)
		synctest.Wait()
		for _, ref := range large {
			if pull := stateOf(p, "large", ref); !pull.Done || pull.Err != nil {
				t.Errorf("%s: %+v", ref, pull)
			}
		}
	})
}

// TestSlotsAreShared: a project with many images does not come before one with few.
func TestSlotsAreShared(t *testing.T) {
	p := &Puller{jobs: map[Key]*pullJob{}, slow: map[string]time.Time{"slow.example": {}}}
	add := func(project, ref string, running bool) *pullJob {
		j := &pullJob{key: Key{ref: ref}, waiting: map[string]bool{project: true}, pace: pace{running: running, turn: make(chan struct{})}}
		p.jobs[j.key] = j
		if !running {
			p.next = append(p.next, j)
		}
		return j
	}
	add("many", "good.example/1", true)
	known := add("other", "slow.example/1", false)
	late, early := add("many", "good.example/2", false), add("few", "good.example/3", false)
	for i, want := range []*pullJob{early, late, known} {
		p.free = 1
		p.grant(time.Time{})
		if !want.running {
			t.Errorf("slot %d was not given to %s", i, want.key.ref)
		}
	}
}
