package agent_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/enginetest/failpoint"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// soakEnv makes the tests that can take long do so.
const soakEnv = "CARA_SOAK"

func soaking() bool { return os.Getenv(soakEnv) != "" }

// pair is a project with all that the agent makes for one: a network, a volume, a file, limits.
func pair(web, memory string) *carav1.ProjectSpec {
	return &carav1.ProjectSpec{
		Volumes: []*carav1.ProjectVolume{{Name: "data"}},
		Services: []*carav1.Service{
			{
				Name: "kv", Image: testimage.KV, VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}},
				Files:     []*carav1.File{{Path: "/etc/kv.conf", Content: "a file\n", Mode: "0600"}},
				Resources: &carav1.Resources{Limits: &carav1.ResourceList{Cpu: "500m", Memory: memory}},
			},
			{Name: "web", Image: web, Env: []*carav1.EnvVar{{Name: "KV_ADDR", Value: "kv:6380"}}},
		},
	}
}

// beside is a pair whose web serves until its successor does.
func beside(web string) *carav1.ProjectSpec {
	spec := pair(web, "64Mi")
	spec.Services[1].Update = &carav1.Update{Order: api.UpdateStartFirst}
	spec.Services[1].Healthcheck = &carav1.Healthcheck{Http: &carav1.HTTPCheck{Path: "/healthz", Port: 8080}, Interval: "100ms"}
	return spec
}

// TestRealAgentKilledAtEachCall kills a real process with SIGKILL before, during and after each engine call that changes
// something, in each kind of rollout, and starts another agent with the same directory. Docker must match the assignments,
// and what the rollout does not affect must stay untouched. With CARA_SOAK it also kills at each call that reads.
func TestRealAgentKilledAtEachCall(t *testing.T) {
	t.Parallel()
	registry := testregistry.New(t)
	registry.PushPadded(t, testimage.WebV1, "killed:1", 1<<20)
	discard(t, registry.Ref("killed:1"))
	for name, c := range map[string]struct {
		before, after *carav1.ProjectSpec // nil: there is no such project
		kept          []string            // services whose containers live through it
		calls         []string            // what it takes
		only          string              // the kind of call to die at; empty: each
	}{
		"create": {nil, pair(testimage.WebV1, "64Mi"), nil, []string{"CopyFiles", "CreateContainer", "CreateNetwork", "CreateVolume", "StartContainer"}, ""},
		"pull":   {nil, pulled(registry.Ref("killed:1")), nil, []string{"CreateContainer", "CreateNetwork", "PullImage", "StartContainer"}, "PullImage"},
		"update": {
			pair(testimage.WebV1, "64Mi"), pair(testimage.WebV2, "64Mi"),
			[]string{"kv"},
			[]string{"CreateContainer", "RemoveContainer", "StartContainer", "StopContainer"},
			"",
		},
		"start-first": {
			beside(testimage.WebV1), beside(testimage.WebV2),
			[]string{"kv"},
			[]string{"CreateContainer", "RemoveContainer", "StartContainer", "StopContainer"},
			"",
		},
		"limits": {pair(testimage.WebV1, "64Mi"), pair(testimage.WebV1, "96Mi"), []string{"kv", "web"}, []string{"UpdateContainer"}, ""},
		"delete": {pair(testimage.WebV1, "64Mi"), nil, nil, []string{"RemoveContainer", "RemoveNetwork", "RemoveVolume", "StopContainer"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &walk{onDocker: newReal(t), project: fmt.Sprint("kill-", name, "-", os.Getpid()), before: c.before, after: c.after, kept: c.kept}
			labels := w.discover(t)
			kinds := slices.DeleteFunc(kindsOf(labels), func(kind string) bool {
				return kind == "RenameContainer" && name == "update" // only if the version before had served long enough to be kept meanwhile
			})
			if !slices.Equal(kinds, c.calls) && !soaking() {
				t.Errorf("the rollout makes the calls %v, want %v", kinds, c.calls)
			}
			for i, label := range labels {
				if !strings.HasPrefix(label, c.only) {
					continue
				}
				for _, when := range deaths(labels, i, c.only != "") {
					t.Run(string(when)+" "+label, func(t *testing.T) { w.die(t, failpoint.Config{Label: label, When: when, Reads: soaking()}) })
				}
			}
		})
	}
}

// deaths returns the moments of call i of a rollout at which to kill an agent. For the engine, after a call equals before the
// next one, and a call during which the agent dies is mostly carried out. So the first call of each kind is tested during
// it, and the last call also after it. A soak test, and a single kind of call, use all three moments of each call.
func deaths(labels []string, i int, alone bool) []failpoint.When {
	if soaking() || alone {
		return []failpoint.When{failpoint.Before, failpoint.During, failpoint.After}
	}
	var moments []failpoint.When
	if strings.HasSuffix(labels[i], "#1") {
		moments = append(moments, failpoint.During)
	}
	if i == len(labels)-1 {
		moments = append(moments, failpoint.After)
	}
	return moments
}

func kindsOf(labels []string) []string {
	kinds := map[string]bool{}
	for _, l := range labels {
		kind, _, _ := strings.Cut(l, "#")
		kinds[kind] = true
	}
	return slices.Sorted(maps.Keys(kinds))
}

// walk takes one project from one spec to another, again and again.
type walk struct {
	*onDocker
	project       string
	before, after *carav1.ProjectSpec
	kept          []string
}

// become asks for a spec, or for the end of the project.
func (w *walk) become(spec *carav1.ProjectSpec) {
	if spec != nil {
		w.put(w.project, spec)
		return
	}
	w.mu.Lock()
	there := w.projects[w.project] != nil
	w.mu.Unlock()
	if there {
		w.terminate(w.project)
	}
}

// is reports whether a project matches a spec.
func is(spec *carav1.ProjectSpec) func(*carav1.Project) bool {
	if spec == nil {
		return gone
	}
	return func(p *carav1.Project) bool {
		return p.GetStatus().GetPhase() == api.PhaseRunning && p.GetStatus().GetObservedGeneration() == p.GetMetadata().GetGeneration()
	}
}

// prepare has an ordinary agent bring about what is before the rollout.
func (w *walk) prepare(t *testing.T) map[string]string {
	t.Helper()
	w.run(t)
	w.become(w.before)
	w.wait(t, w.project, is(w.before))
	ids := w.equal(t)
	w.stop()
	return ids
}

// discover returns the labels of the rollout's calls, in order.
func (w *walk) discover(t *testing.T) []string {
	t.Helper()
	w.prepare(t)
	w.become(w.after)
	c := w.startChild(t, failpoint.Config{Reads: soaking()})
	w.wait(t, w.project, is(w.after))
	w.equal(t)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	return c.calls(t)
}

// die kills an agent during the rollout, and lets another one finish it.
func (w *walk) die(t *testing.T, at failpoint.Config) {
	before := w.prepare(t)
	if slices.ContainsFunc(w.after.GetServices(), func(s *carav1.Service) bool { return s.GetUpdate().GetOrder() == api.UpdateStartFirst }) {
		defer w.serves(t)()
	}
	w.become(w.after)
	c := w.startChild(t, at)
	waitUntil(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return c.Exited() || is(w.after)(w.projects[w.project])
	})
	if c.Exited() {
		if code := c.ExitCode(); code != -1 || !slices.Contains(c.calls(t), at.Label) {
			t.Fatalf("the agent ended with code %d at the calls %v, want it killed at %s", code, c.calls(t), at.Label)
		}
	} else if err := c.Kill(); err != nil { // a rollout may take another way: it retried, or found done what it meant to do
		t.Fatal(err)
	}
	w.run(t)
	w.wait(t, w.project, is(w.after))
	after := w.equal(t)
	w.stop()
	for _, service := range w.kept {
		keeps(t, before, after, w.project+"."+service)
	}
	w.made(t, after)
}

// serves checks until stop is called that a container of web is always running.
func (w *walk) serves(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	labels := map[string]string{api.LabelProject: w.project, api.LabelService: "web", api.LabelCluster: w.cluster}
	looked := make(chan error, 1)
	go func() {
		looks := 0
		for ; ctx.Err() == nil; looks++ {
			list, err := w.cfg.Engine.ListContainers(ctx, labels)
			if err == nil && !slices.ContainsFunc(list, func(c engine.Container) bool { return c.State == engine.StateRunning }) {
				looked <- fmt.Errorf("look %d: none of the containers %v runs", looks, list)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		looked <- nil
	}()
	return func() {
		cancel()
		if err := <-looked; err != nil {
			t.Error(err)
		}
	}
}

// made compares the limits and files of containers with those that are asked for.
func (w *walk) made(t *testing.T, ids map[string]string) {
	t.Helper()
	for _, s := range w.after.GetServices() {
		want, err := engine.LimitsOf(s)
		if err != nil {
			t.Fatal(err)
		}
		if want.PIDs == 0 {
			want.PIDs = 4096 // the agent's own limit, where the manifest has none
		}
		c, err := w.cfg.Engine.InspectContainer(t.Context(), ids[w.project+"."+s.GetName()])
		if err != nil || c.Limits != want {
			t.Errorf("service %s has the limits %+v (%v), want %+v", s.GetName(), c.Limits, err, want)
		}
		for _, f := range s.GetFiles() {
			if stat, err := w.docker(t).ContainerStatPath(t.Context(), c.ID, f.GetPath()); err != nil || stat.Size != int64(len(f.GetContent())) {
				t.Errorf("service %s has of its file %s %d bytes (%v), want %d", s.GetName(), f.GetPath(), stat.Size, err, len(f.GetContent()))
			}
		}
	}
}
