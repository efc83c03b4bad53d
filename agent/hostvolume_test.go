package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/hostvolume"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestHostVolumeApart: what projects must not see cannot be offered, nor what contains it.
func TestHostVolumeApart(t *testing.T) {
	f := newFaked(t)
	for name, c := range map[string]struct{ path, err string }{
		"the data directory":           {f.cfg.DataDir, "shows the agent's data directory, " + f.cfg.DataDir},
		"a part of it":                 {filepath.Join(f.cfg.DataDir, "records"), "shows the agent's data directory"},
		"a directory that contains it": {filepath.Dir(f.cfg.DataDir), "shows the agent's data directory"},
	} {
		if err := os.MkdirAll(c.path, 0o700); err != nil {
			t.Fatal(err)
		}
		offers, err := hostvolume.Parse([]string{"media=" + c.path})
		if err != nil {
			t.Fatal(err)
		}
		cfg := f.cfg
		cfg.HostVolumes = offers
		if _, err := agent.New(cfg); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg := f.cfg
	var err error
	if cfg.HostVolumes, err = hostvolume.Parse([]string{"media=" + t.TempDir()}); err != nil { // the fake engine's root is the folder of all tests
		t.Fatal(err)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "shows the engine's data directory, ") {
		t.Errorf("inside of the engine's root: %v", err)
	}
}

// offered is an agent that offers a directory to projects.
func offered(t *testing.T, options string) (f *faked, dir string) {
	t.Helper()
	f = newFaked(t)
	f.engine.Root(filepath.Join(t.TempDir(), "engine"))
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "media")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if f.cfg.HostVolumes, err = hostvolume.Parse([]string{"media=" + dir + options}); err != nil {
		t.Fatal(err)
	}
	return f, dir
}

// withHost is a project that mounts the host volume media.
func withHost() *carav1.ProjectSpec {
	spec := services("web")
	spec.Volumes = []*carav1.ProjectVolume{{Name: "films", Type: api.VolumeHost, Host: "media"}}
	spec.Services[0].VolumeMounts = []*carav1.VolumeMount{{Name: "films", MountPath: "/films"}}
	return spec
}

func TestHostVolumeIsMounted(t *testing.T) {
	f, dir := offered(t, ",ro,projects=p;q-*")
	at := f.up(t, withHost())["cara-p.a"]
	if diff := cmp.Diff(map[string]engine.Source{"/films": {Path: dir, ReadOnly: true}}, at.Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	f.mu.Lock()
	var info *carav1.NodeInfo
	for _, b := range f.beats {
		if b.GetInfo() != nil {
			info = b.GetInfo()
		}
	}
	f.mu.Unlock()
	if got := info.GetHostVolumes(); len(got) != 1 || got[0].GetName() != "media" || !got[0].GetReadOnly() || strings.Join(got[0].GetProjects(), " ") != "p q-*" {
		t.Errorf("the node offers %v", got)
	}
	f.put("other", withHost())
	p := f.wait(t, "other", phase(api.PhaseFailed))
	why := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase)
	if why.GetReason() != api.ReasonPolicyViolation || !strings.Contains(why.GetMessage(), `does not offer the host volume "media" to project other`) {
		t.Errorf("it is Failed for %s: %s", why.GetReason(), why.GetMessage())
	}
	if len(f.containers(t)) != 1 {
		t.Errorf("containers %v", f.containers(t))
	}
	f.terminate("p")
	f.wait(t, "p", gone)
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("after the project: %v", err)
	}
}

// TestHostVolumeIsMissing: a project waits for a path that is missing, or that is something else, and nothing is created there.
func TestHostVolumeIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		instead func(dir string) error
		says    string
	}{
		"missing": {func(string) error { return nil }, "/media does not exist; create it, or mount its disk"},
		"a file":  {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "/media is a file and was a directory"},
		"a link":  {func(dir string) error { return os.Symlink("/", dir) }, "/media was replaced by a link to /"},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := offered(t, "")
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			if err := c.instead(dir); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(dir)
			f.run(t)
			f.put("p", withHost())
			p := f.wait(t, "p", func(p *carav1.Project) bool {
				return strings.Contains(api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage(), c.says)
			})
			if p.GetStatus().GetPhase() != api.PhaseScheduled || f.engine.Calls("CreateContainer") > 0 {
				t.Errorf("phase %s after %d containers", p.GetStatus().GetPhase(), f.engine.Calls("CreateContainer"))
			}
			if after, _ := os.Lstat(dir); before != nil && !os.SameFile(before, after) || before == nil && after != nil {
				t.Errorf("the path is %v and was %v", after, before)
			}
			if before != nil {
				if err := os.Remove(dir); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			f.edit("p", func(p *carav1.Project) { p.Metadata.Generation++ }) // else it looks after a pause
			f.wait(t, "p", phase(api.PhaseRunning))
		})
	}
}
