package agent_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/docker"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// onDocker is an agent over the real engine, with a server of its own.
type onDocker struct {
	*rig
	host   string
	labels map[string]string
}

func newReal(t testing.TB) *onDocker {
	host := testdocker.Engine(t)
	testdocker.Images(t, host)
	engine, err := docker.New(docker.Config{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	cluster := fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano())
	r := &onDocker{rig: newRig(t, cluster, engine), host: host, labels: map[string]string{"cara.cluster": cluster}}
	t.Cleanup(func() {
		if r.stop != nil {
			r.stop()
		}
		if err := testdocker.Remove(context.WithoutCancel(t.Context()), host, r.labels); err != nil {
			t.Error(err)
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *onDocker) held(t testing.TB) testdocker.Held {
	return testdocker.Labelled(t, r.host, r.labels)
}

// ids of the containers, by name.
func (r *onDocker) ids(t testing.TB) map[string]string {
	out := map[string]string{}
	for _, c := range r.held(t).Containers {
		out[strings.TrimPrefix(c.Names[0], "/")] = c.ID
	}
	return out
}

func name(t testing.TB) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + fmt.Sprint("-", os.Getpid())
}

func three() *carav1.ProjectSpec {
	return &carav1.ProjectSpec{
		Volumes: []*carav1.ProjectVolume{{Name: "data"}},
		Services: []*carav1.Service{
			{Name: "kv", Image: testimage.KV, VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}},
			{Name: "web", Image: testimage.WebV1, Env: []*carav1.EnvVar{{Name: "KV_ADDR", Value: "kv:6380"}}},
			{Name: "front", Image: testimage.WebV1, Env: []*carav1.EnvVar{{Name: "KV_ADDR", Value: "kv:6380"}}},
		},
	}
}

func TestRealThreeServices(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	project := name(t)
	begun := time.Now()
	r.put(project, three())
	p := r.wait(t, project, phase(api.PhaseRunning))
	t.Logf("apply -> Running: %s", time.Since(begun).Round(time.Millisecond))
	if len(p.Status.Services) != 3 || !api.IsTrue(p.Status.Conditions, api.CondReady) {
		t.Errorf("status of a running project: %v", p.Status)
	}
	ip, ok := r.agent.Endpoints().IP(project, "web")
	if !ok {
		t.Fatal("web has no endpoint")
	}
	if body := get(t, "http://"+ip+":8080/"); !strings.Contains(body, "visits 1") {
		t.Errorf("web does not reach kv by name: %q", body)
	}
	before := r.ids(t)

	t.Run("an update of one service leaves the others alone", func(t *testing.T) {
		spec := three()
		spec.Services[2].Image = testimage.WebV2
		r.put(project, spec)
		r.wait(t, project, phase(api.PhaseRunning))
		waitUntil(t, func() bool { return len(r.ids(t)) == len(before) }) // the one of before goes once the new one has stayed up
		after := r.ids(t)
		if before["cara-"+project+".front"] == after["cara-"+project+".front"] {
			t.Error("the changed service was not replaced")
		}
		delete(before, "cara-"+project+".front")
		delete(after, "cara-"+project+".front")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("containers of unchanged services (-before +after):\n%s", diff)
		}
	})

	t.Run("a new agent adopts and restarts nothing", func(t *testing.T) {
		before := r.ids(t)
		reports := r.reported()
		r.stop()
		r.run(t)
		waitUntil(t, func() bool { return r.reported() > reports })
		if diff := cmp.Diff(before, r.ids(t)); diff != "" {
			t.Errorf("containers (-before +after):\n%s", diff)
		}
	})

	t.Run("delete", func(t *testing.T) {
		begun := time.Now()
		r.terminate(project)
		r.wait(t, project, gone)
		t.Logf("delete -> gone: %s", time.Since(begun).Round(time.Millisecond))
		if held := r.held(t); !held.Empty() {
			t.Errorf("left behind:\n%s", held)
		}
	})
}

func get(t testing.TB, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// uniqueName is a project's name that no other test, and no other run of this one, uses.
func uniqueName(prefix string) string { return fmt.Sprint(prefix, "-", rand.Uint64()%1e9) }
