package agent_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/api/types/volume"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/enginetest/failpoint"
	"github.com/caravanserai/cara/agent/hostvolume"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// diary is a project whose service db adds a line to a file in its Managed volume whenever it starts.
func diary(line string) *carav1.ProjectSpec {
	return &carav1.ProjectSpec{
		Volumes: []*carav1.ProjectVolume{{Name: "data", Type: api.VolumeManaged}},
		Services: []*carav1.Service{{
			Name: "db", Image: testimage.Busybox, StopSignal: "SIGKILL", Env: []*carav1.EnvVar{{Name: "LINE", Value: line}},
			Command: []string{"sh", "-c", `echo "$LINE" >> /data/diary; exec sleep 1000`}, VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}},
	}
}

// sh runs a script in the container of a service, and returns its output.
func (r *onDocker) sh(t testing.TB, project, service, script string) string {
	t.Helper()
	p, err := r.cfg.Engine.Start(t.Context(), r.ids(t)["cara-"+project+"."+service], engine.Command{Args: []string{"sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.End(t.Context())
	var out strings.Builder
	if _, err := p.Wait(t.Context(), func(data []byte, _ bool) error {
		out.Write(data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// running waits until a project runs in its newest generation, and checks that Docker is as assigned.
func (r *onDocker) running(t testing.TB, project string) {
	t.Helper()
	r.wait(t, project, func(p *carav1.Project) bool {
		return p.GetStatus().GetPhase() == api.PhaseRunning && p.GetStatus().GetObservedGeneration() == p.GetMetadata().GetGeneration()
	})
	r.equal(t)
}

// removeContainers removes all containers of the test by hand.
func (r *onDocker) removeContainers(t testing.TB) {
	t.Helper()
	for _, id := range r.ids(t) {
		if err := r.docker(t).ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRealDataSurvives: the data of a Managed volume survives all but the server's request to remove it.
func TestRealDataSurvives(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	project := uniqueName("diary")
	want := []string{"one"}
	r.put(project, diary("one"))
	r.running(t, project)
	step := func(name string, do func(), line ...string) {
		t.Helper()
		do()
		r.running(t, project)
		want = append(want, line...)
		if got := r.sh(t, project, "db", "cat /data/diary"); got != strings.Join(want, "\n") {
			t.Fatalf("after %s the data is\n%s\nwant\n%s", name, got, strings.Join(want, "\n"))
		}
	}
	step("an update", func() { r.put(project, diary("two")) }, "two")
	step("a restart of the agent", func() { r.stop(); r.run(t) })
	step("the loss of the agent's directory", func() {
		r.stop()
		if err := os.RemoveAll(r.cfg.DataDir); err != nil {
			t.Fatal(err)
		}
		r.run(t)
	})
	step("the removal of the containers", func() { r.removeContainers(t) }, "two")
	step("a prune of volumes", func() {
		docker, unused := r.docker(t), filters.NewArgs(filters.Arg("label", "cara.cluster="+r.cluster))
		docker.NegotiateAPIVersion(t.Context())
		if versions.GreaterThanOrEqualTo(docker.ClientVersion(), "1.42") { // before, all is the default
			unused.Add("all", "true")
		}
		if _, err := docker.VolumesPrune(t.Context(), unused); err != nil {
			t.Fatal(err)
		}
	})
	step("the end of the project, and the next one of its name", func() {
		r.terminate(project)
		r.wait(t, project, gone)
		r.equal(t)
		if held := r.held(t); len(held.Volumes) != 1 || len(held.Containers)+len(held.Networks) > 0 {
			t.Fatalf("left behind:\n%s", held)
		}
		r.put(project, diary("three"))
	}, "three")
	step("another epoch", func() {
		r.edit(project, func(p *carav1.Project) { p.Status.Epoch++; p.Status.Phase = api.PhaseScheduled })
	}, "three")

	r.move(project)
	_, err := r.docker(t).VolumeCreate(t.Context(), volume.CreateOptions{Name: project + "-orphan", Labels: map[string]string{
		api.LabelCluster: r.cluster, api.LabelNode: "n1", api.LabelProject: "nobody",
	}})
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return r.told(api.ReasonOrphansSwept) > 0 })
	waitUntil(t, func() bool { return len(r.held(t).Containers) == 0 && len(r.held(t).Volumes) == 1 })
	if held := r.held(t); held.Volumes[0].Name != dataName(project, "data") {
		t.Errorf("after the sweep:\n%s", held)
	}
	r.removeVolume(project, "data")
	waitUntil(t, func() bool { return r.removing() == 0 })
	if held := r.held(t); !held.Empty() {
		t.Errorf("left behind:\n%s", held)
	}
}

// TestRealDataIsNotReplaced: a project whose volume was removed by hand fails, and there is no empty volume in its place.
func TestRealDataIsNotReplaced(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.deaf = true // only the agent's own record knows that the volume was made
	r.run(t)
	project := uniqueName("lost")
	r.put(project, diary("one"))
	r.running(t, project)
	name := dataName(project, "data")
	if err := r.docker(t).VolumeRemove(t.Context(), name, true); err == nil {
		t.Error("the engine removed a volume in use")
	}
	r.stop()
	r.removeContainers(t)
	if err := r.docker(t).VolumeRemove(t.Context(), name, false); err != nil {
		t.Fatal(err)
	}
	r.run(t)
	p := r.wait(t, project, phase(api.PhaseFailed))
	why := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase)
	if why.GetReason() != api.ReasonVolumeLost || !strings.Contains(why.GetMessage(), "caractrl recreate volume "+project+".data") {
		t.Errorf("it is Failed for %s: %s", why.GetReason(), why.GetMessage())
	}
	r.equal(t)
	if held := r.held(t); len(held.Volumes)+len(held.Containers) > 0 {
		t.Errorf("there is\n%s", held)
	}
	r.edit(project, func(p *carav1.Project) { // an empty one is what the operator wants
		p.Status.Epoch, p.Status.Phase, p.Status.Volumes[0].Uid = p.Status.Epoch+1, api.PhaseScheduled, "again-"+project
	})
	r.running(t, project)
	if got := r.sh(t, project, "db", "cat /data/diary"); got != "one" {
		t.Errorf("the new volume has %q", got)
	}
}

// removeData removes the project and its data.
func (w *walk) removeData(t *testing.T) {
	t.Helper()
	w.run(t)
	w.become(nil)
	w.wait(t, w.project, gone)
	w.removeVolume(w.project, "data")
	waitUntil(t, func() bool { return w.removing() == 0 })
	w.stop()
}

// TestRealDataUnderKills kills the agent with SIGKILL at each call that changes something while it creates or updates a
// project with a Managed volume. No line of the diary is ever lost, and there is never a second volume.
func TestRealDataUnderKills(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]*carav1.ProjectSpec{"create": nil, "update": diary("before")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &walk{onDocker: newReal(t), project: fmt.Sprint("diary-", name, "-", os.Getpid()), before: before, after: diary("after")}
			labels := w.discover(t)
			last := w.sh(t, w.project, "db", "cat /data/diary")
			for i, label := range labels {
				for _, when := range deaths(labels, i, false) {
					t.Run(string(when)+" "+label, func(t *testing.T) {
						if strings.HasPrefix(label, "CreateVolume") { // there must be none before
							w.removeData(t)
							last = ""
						}
						w.die(t, failpoint.Config{Label: label, When: when, Reads: soaking()})
						next := w.sh(t, w.project, "db", "cat /data/diary")
						if !strings.HasPrefix("\n"+next, "\n"+last) || next == last || !strings.HasSuffix(next, "after") {
							t.Errorf("the data was\n%s\nand is\n%s", last, next)
						}
						last = next
						if held := w.held(t); len(held.Volumes) != 1 {
							t.Errorf("volumes:\n%s", held)
						}
					})
				}
			}
		})
	}
}

// TestRealHostVolume mounts directories and a socket of this machine.
func TestRealHostVolume(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rw", "ro"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "note"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	project := uniqueName("host")
	r.cfg.HostVolumes, err = hostvolume.Parse([]string{
		"rw=" + filepath.Join(dir, "rw"), "ro=" + filepath.Join(dir, "ro") + ",ro,projects=host-*", "s=" + filepath.Join(dir, "s"),
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := func() *carav1.ProjectSpec {
		out := &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "box", Image: testimage.Busybox, Command: []string{"sleep", "1000"}, StopSignal: "SIGKILL"}}}
		for _, name := range []string{"rw", "ro", "s"} {
			out.Volumes = append(out.Volumes, &carav1.ProjectVolume{Name: name, Type: api.VolumeHost, Host: name})
			out.Services[0].VolumeMounts = append(out.Services[0].VolumeMounts, &carav1.VolumeMount{Name: name, MountPath: "/" + name})
		}
		return out
	}
	r.run(t)
	r.put(project, spec())
	r.running(t, project)
	got := r.sh(t, project, "box", "cat /rw/note /ro/note; echo new > /rw/new; touch /ro/new 2>&1; test -S /s && echo socket")
	if !strings.HasPrefix(got, "rwro") || !strings.Contains(got, "Read-only file system") || !strings.HasSuffix(got, "socket") {
		t.Errorf("the container sees %q", got)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "rw", "new")); string(data) != "new\n" {
		t.Errorf("the host sees %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ro", "new")); err == nil {
		t.Error("a container wrote to what is offered for reading only")
	}
	other := uniqueName("other")
	r.put(other, spec())
	p := r.wait(t, other, phase(api.PhaseFailed))
	if why := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase); why.GetReason() != api.ReasonPolicyViolation || !strings.Contains(why.GetMessage(), `"ro"`) {
		t.Errorf("it is Failed for %s: %s", why.GetReason(), why.GetMessage())
	}
	r.terminate(other)
	r.wait(t, other, gone)

	r.stop()
	if err := os.Rename(filepath.Join(dir, "rw"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	r.removeContainers(t)
	r.run(t)
	r.wait(t, project, func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return c.GetStatus() == api.StatusFalse && strings.Contains(c.GetMessage(), dir+"/rw does not exist; create it, or mount its disk")
	})
	if _, err := os.Stat(filepath.Join(dir, "rw")); err == nil || len(r.held(t).Containers) > 0 {
		t.Errorf("something was created: %v\n%s", err, r.held(t))
	}
	if err := os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "rw")); err != nil {
		t.Fatal(err)
	}
	r.running(t, project)
	r.terminate(project)
	r.wait(t, project, gone)
	if data, err := os.ReadFile(filepath.Join(dir, "rw", "note")); string(data) != "rw" {
		t.Errorf("after the project the host has %q, %v", data, err)
	}
}
