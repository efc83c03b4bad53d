package agent_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestParseHostVolumes(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "media"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(os.Symlink(filepath.Join(dir, "media"), filepath.Join(dir, "link")))
	must(os.Symlink("/proc", filepath.Join(dir, "kernel")))
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "s"))
	must(err)
	defer l.Close()
	for name, c := range map[string]struct {
		args []string // DIR is the directory of the test
		want string
		err  string
	}{
		"none":                   {nil, "", ""},
		"a directory":            {[]string{"media=DIR/media"}, "media DIR/media", ""},
		"read-only":              {[]string{"media=DIR/media,ro"}, "media DIR/media ro", ""},
		"for some projects":      {[]string{"media=DIR/media,projects=jelly-*;shop"}, "media DIR/media jelly-* shop", ""},
		"both":                   {[]string{"media=DIR/media,projects=shop,ro"}, "media DIR/media ro shop", ""},
		"split at commas":        {[]string{"media=DIR/media", "ro", "projects=shop", "tmp=DIR/media/"}, "media DIR/media ro shop, tmp DIR/media", ""},
		"named as an option":     {[]string{"projects=DIR/media"}, "projects DIR/media", ""},
		"one inside the other":   {[]string{"media=DIR/media", "all=DIR"}, "", "one of DIR/media and DIR is inside the other"},
		"one path, two names":    {[]string{"media=DIR/media", "read=DIR/media,ro"}, "media DIR/media, read DIR/media ro", ""},
		"a link":                 {[]string{"media=DIR/link"}, "media DIR/media", ""},
		"a socket":               {[]string{"docker=DIR/s"}, "docker DIR/s socket", ""},
		"a file":                 {[]string{"media=DIR/file"}, "", "DIR/file is a file; only a directory or a socket"},
		"a missing path":         {[]string{"media=DIR/nothing"}, "", "no such file or directory; create it"},
		"a relative path":        {[]string{"media=srv"}, "", `the path "srv" is not absolute`},
		"no path":                {[]string{"media"}, "", `the path "" is not absolute`},
		"a wrong name":           {[]string{"Media=DIR/media"}, "", "lower-case letters"},
		"an unknown option":      {[]string{"media=DIR/media,rw"}, "", `host volume rw: the path "" is not absolute`},
		"given twice":            {[]string{"media=DIR/media", "media=DIR/media"}, "", "host volume media is given twice"},
		"an option alone":        {[]string{"ro"}, "", `"ro" is not after a host volume`},
		"a wrong pattern":        {[]string{"media=DIR/media,projects=Shop"}, "", "projects of host volume media: is \"Shop\""},
		"an empty pattern":       {[]string{"media=DIR/media,projects="}, "", "projects of host volume media"},
		"the whole machine":      {[]string{"root=/"}, "", "/ cannot be offered: it shows /proc, with which a container controls the machine"},
		"the kernel":             {[]string{"kernel=/proc/self"}, "", "cannot be offered"},
		"the kernel over a link": {[]string{"kernel=DIR/kernel"}, "", "/proc cannot be offered"},
		"devices":                {[]string{"dev=/dev"}, "", "/dev cannot be offered"},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range c.args {
				c.args[i] = strings.ReplaceAll(c.args[i], "DIR", dir)
			}
			got, err := agent.ParseHostVolumes(c.args)
			var said []string
			for _, h := range got {
				line := h.Offer.GetName() + " " + strings.ReplaceAll(h.Path, dir, "DIR")
				if h.Offer.GetReadOnly() {
					line += " ro"
				}
				if h.Socket {
					line += " socket"
				}
				said = append(said, strings.Join(append([]string{line}, h.Offer.GetProjects()...), " "))
			}
			if text := strings.Join(said, ", "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
			if (err != nil) != (c.err != "") || !strings.Contains(strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

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
		offers, err := agent.ParseHostVolumes([]string{"media=" + c.path})
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
	if cfg.HostVolumes, err = agent.ParseHostVolumes([]string{"media=" + t.TempDir()}); err != nil { // the fake engine's root is the folder of all tests
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
	if f.cfg.HostVolumes, err = agent.ParseHostVolumes([]string{"media=" + dir + options}); err != nil {
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
