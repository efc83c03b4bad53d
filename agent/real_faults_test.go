package agent_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

func (r *onDocker) docker(t testing.TB) *client.Client {
	t.Helper()
	c, err := testdocker.Client(r.host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestRealFailures(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	registry := testregistry.New(t)
	for what, c := range map[string]struct {
		service *carav1.Service
		reason  string
		message []string
	}{
		"image missing": {
			&carav1.Service{Image: registry.Ref("none:1")}, "ImagePullFailed", []string{"none:1", "service a"},
		},
		"no such command": {
			&carav1.Service{Image: testimage.Busybox, Command: []string{"/no/such"}}, "StartFailed", []string{"/no/such", "service a"},
		},
		"exits at once": {
			&carav1.Service{Image: testimage.Job, Args: []string{"-lines", "2", "-exit", "9"}}, "CrashLoop",
			[]string{"exited with code 9", "job v1 line 2 of 2", "5 restarts"},
		},
		"never healthy": {
			&carav1.Service{Image: testimage.WebV1, Env: []*carav1.EnvVar{{Name: "UNHEALTHY", Value: "1"}}, Healthcheck: &carav1.Healthcheck{
				Http: &carav1.HTTPCheck{Path: "/healthz", Port: 8080}, Interval: "100ms", Retries: 5,
			}}, "HealthCheckFailed", []string{"503", "service a"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			project := name(t)
			c.service.Name = "a"
			r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{c.service}})
			p := r.wait(t, project, phase(api.PhaseFailed))
			got := api.FindCondition(p.Status.Conditions, api.CondPhase)
			if got.GetReason() != c.reason {
				t.Errorf("reason %s, want %s", got.GetReason(), c.reason)
			}
			for _, want := range c.message {
				if !strings.Contains(got.GetMessage(), want) {
					t.Errorf("message lacks %q:\n%s", want, got.GetMessage())
				}
			}
			t.Log(got.GetMessage())
			r.terminate(project)
			r.wait(t, project, gone)
		})
	}
}

// TestRealOptions asks the container itself what it got.
func TestRealOptions(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.secrets["p"] = nil
	r.run(t)
	project := name(t)
	r.mu.Lock()
	r.secrets[project] = map[string][]byte{"db/p": []byte("hunter2")}
	r.mu.Unlock()
	ref := &carav1.SecretKeyRef{Name: "db", Key: "p"}
	script := `id -u; pwd; cat /proc/self/limits | grep 'open files'; cat /etc/app/conf; stat -c %a /etc/app/conf; echo $SECRET; df -m /dev/shm | tail -1; hostname; mount | grep ' /scratch '; exec sleep 1000`
	r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "box", Image: testimage.Busybox, Command: []string{"sh", "-c"}, Args: []string{script}, User: "1000", WorkingDir: "/tmp",
		Env:     []*carav1.EnvVar{{Name: "SECRET", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: ref}}},
		Files:   []*carav1.File{{Path: "/etc/app/conf", Content: "from a file\n", Mode: "0644"}},
		Ulimits: []*carav1.Ulimit{{Name: "nofile", Soft: 1234}}, ShmSize: "16Mi", Tmpfs: []string{"/scratch:size=8m"},
		Init: true, CapDrop: []string{"ALL"}, CapAdd: []string{"NET_BIND_SERVICE"}, StopSignal: "SIGKILL", StopGracePeriod: "3s",
		Labels:    map[string]string{"team": "shop"},
		Resources: &carav1.Resources{Limits: &carav1.ResourceList{Cpu: "500m", Memory: "64Mi"}},
	}}})
	p := r.wait(t, project, phase(api.PhaseRunning))
	id := p.Status.Services[0].GetContainerId()
	var lines []string
	waitUntil(t, func() bool {
		lines = nil
		if err := r.cfg.Engine.Logs(t.Context(), id, engine.LogOptions{}, func(l engine.LogLine) error {
			lines = append(lines, l.Text)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return len(lines) >= 9
	})
	out := strings.Join(lines, "\n")
	for _, want := range []string{"1000\n/tmp\n", "1234", "from a file\n644\nhunter2\n", " 16 ", "\nbox\n", "size=8192k"} {
		if !strings.Contains(out, want) {
			t.Errorf("the container's own account lacks %q:\n%s", want, out)
		}
	}
	c, err := r.docker(t).ContainerInspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	host := c.HostConfig
	if host.NanoCPUs != 5e8 || host.Memory != 64<<20 || host.LogConfig.Config["max-size"] != "10m" || host.LogConfig.Config["max-file"] != "3" ||
		host.RestartPolicy.Name != "no" || host.Init == nil || !*host.Init || host.CapDrop[0] != "ALL" || c.Config.StopSignal != "SIGKILL" ||
		*c.Config.StopTimeout != 3 || c.Config.Labels["team"] != "shop" {
		t.Errorf("host config %+v, config %+v", host, c.Config)
	}
	keys := slices.Sorted(maps.Keys(c.Config.Labels))
	want := []string{"cara.cluster", "cara.epoch", "cara.node", "cara.project", "cara.run-hash", "cara.secrets", "cara.service", "cara.spec-hash", "cara.uid"}
	if diff := cmp.Diff(want, slices.DeleteFunc(keys, func(k string) bool { return !strings.HasPrefix(k, "cara.") || strings.HasPrefix(k, "cara.fixtures") })); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// TestRealManyProjects is past where Docker's own address pools end.
func TestRealManyProjects(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	many := 34
	if soaking() {
		many = 200
	}
	begun := time.Now()
	for i := range many {
		r.put(fmt.Sprintf("%s-%d", name(t), i), &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: testimage.Job, Args: []string{"-after", "1h"}}}})
	}
	for i := range many {
		r.wait(t, fmt.Sprintf("%s-%d", name(t), i), phase(api.PhaseRunning))
	}
	t.Logf("%d projects Running: %s", many, time.Since(begun).Round(time.Millisecond))
	if ids := r.equal(t); len(ids) != many {
		t.Errorf("%d containers, want %d", len(ids), many)
	}
	subnets := map[string]bool{}
	for _, n := range r.held(t).Networks {
		subnets[n.IPAM.Config[0].Subnet] = true
		if !strings.HasPrefix(n.IPAM.Config[0].Subnet, "10.213.") || !strings.HasSuffix(n.IPAM.Config[0].Subnet, "/27") {
			t.Errorf("subnet %s", n.IPAM.Config[0].Subnet)
		}
	}
	if len(subnets) != many {
		t.Errorf("%d subnets, want %d", len(subnets), many)
	}
	begun = time.Now()
	for i := range many {
		r.terminate(fmt.Sprintf("%s-%d", name(t), i))
	}
	for i := range many {
		r.wait(t, fmt.Sprintf("%s-%d", name(t), i), gone)
	}
	t.Logf("%d projects gone: %s", many, time.Since(begun).Round(time.Millisecond))
	if held := r.held(t); !held.Empty() {
		t.Errorf("left behind:\n%s", held)
	}
}
