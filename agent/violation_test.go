package agent_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestWhatBreaksThePoliciesIsNeverRun, although the server has assigned it.
func TestWhatBreaksThePoliciesIsNeverRun(t *testing.T) {
	for name, change := range map[string]func(*carav1.ProjectSpec){
		"a capability":  func(s *carav1.ProjectSpec) { s.Services[0].CapAdd = []string{"SYS_ADMIN"} },
		"open files":    func(s *carav1.ProjectSpec) { s.Services[0].Ulimits = []*carav1.Ulimit{{Name: "nofile", Soft: -1}} },
		"shared memory": func(s *carav1.ProjectSpec) { s.Services[0].ShmSize = "1Ti" },
		"tmpfs":         func(s *carav1.ProjectSpec) { s.Services[0].Tmpfs = []string{"/x:size=100g"} },
		"a volume": func(s *carav1.ProjectSpec) {
			s.Volumes = []*carav1.ProjectVolume{{Name: "../../etc", Type: "HostPath"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			spec := services("web", "web")
			f.up(t, spec)
			change(spec)
			f.put("p", spec)
			p := f.wait(t, "p", phase(api.PhaseFailed))
			if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase); c.GetReason() != api.ReasonPolicyViolation ||
				!strings.Contains(c.GetMessage(), "this node does not run what breaks its policies: spec.") {
				t.Errorf("says %v", c)
			}
			waitUntil(t, func() bool { return !runs(t, f.rig) })
			f.put("q", spec)
			f.wait(t, "q", phase(api.PhaseFailed))
			if list, err := f.engine.ListContainers(t.Context(), map[string]string{api.LabelProject: "q"}); err != nil || len(list) > 0 {
				t.Errorf("made %v, %v", list, err)
			}
			f.put("p", services("web")) // and what keeps them runs again
			f.wait(t, "p", phase(api.PhaseRunning))
		})
	}
}

func runs(t *testing.T, r *rig) bool {
	t.Helper()
	list, err := r.cfg.Engine.ListContainers(t.Context(), map[string]string{api.LabelProject: "p"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.State == engine.StateRunning {
			return true
		}
	}
	return false
}

// TestAllowedCapabilities: a node runs what its own operator allows, whatever the server sends.
func TestAllowedCapabilities(t *testing.T) {
	f := newFaked(t)
	f.cfg.Hardening.AllowCaps = []string{"NET_ADMIN"}
	f.run(t)
	for capability, want := range map[string]string{"NET_ADMIN": api.PhaseRunning, "CHOWN": api.PhaseRunning, "SYS_ADMIN": api.PhaseFailed} {
		spec := services("web")
		spec.Services[0].CapAdd = []string{capability}
		project := strings.ToLower(strings.ReplaceAll(capability, "_", "-"))
		f.put(project, spec)
		f.wait(t, project, phase(want))
	}
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.ContainsFunc(f.beats, func(b *carav1.Heartbeat) bool {
			return slices.Equal(b.GetInfo().GetAllowedCapabilities(), []string{"NET_ADMIN"})
		})
	})
}

// TestANameThatIsNoneTouchesNoFile: names from the server become file names, so an invalid one must not reach the disk.
func TestANameThatIsNoneTouchesNoFile(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	f.mu.Lock()
	f.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Assignment{Assignment: &carav1.Assignment{Project: &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "../../evil", Uid: "u", Generation: 1}, Spec: services("web"),
		Status: &carav1.ProjectStatus{Phase: api.PhaseScheduled, NodeRef: "n1", Epoch: 1},
	}}}})
	f.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Unassigned{Unassigned: &carav1.Unassigned{Name: "../assignments/p"}}})
	f.mu.Unlock()
	f.put("q", services("web"))
	f.wait(t, "q", phase(api.PhaseRunning))
	if !runs(t, f.rig) {
		t.Error("a name that is none ended another project")
	}
	if list, err := f.engine.ListContainers(t.Context(), map[string]string{api.LabelProject: "../../evil"}); err != nil || len(list) > 0 {
		t.Errorf("made %v, %v", list, err)
	}
}

// TestRealFilesOfAReadOnlyService go into its volumes.
func TestRealFilesOfAReadOnlyService(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	project := name(t)
	r.put(project, &carav1.ProjectSpec{
		Volumes: []*carav1.ProjectVolume{{Name: "conf"}},
		Services: []*carav1.Service{{
			Name: "box", Image: testimage.Busybox, ReadOnly: true, Command: []string{"sh", "-c"},
			Args:         []string{"cat /conf/sub/app /conf/top; touch /x || echo refused; exec sleep 1000"},
			VolumeMounts: []*carav1.VolumeMount{{Name: "conf", MountPath: "/conf"}},
			Files:        []*carav1.File{{Path: "/conf/sub/app", Content: "below\n"}, {Path: "/conf/top", Content: "top\n"}},
		}},
	})
	p := r.wait(t, project, phase(api.PhaseRunning))
	var lines []string
	waitUntil(t, func() bool {
		lines = nil
		if err := r.cfg.Engine.Logs(t.Context(), p.Status.Services[0].GetContainerId(), engine.LogOptions{}, func(l engine.LogLine) error {
			lines = append(lines, l.Text)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return len(lines) >= 4
	})
	for _, line := range []string{"below", "top", "refused"} { // in any order: the engine reads two pipes
		if !slices.Contains(lines, line) {
			t.Errorf("the container does not say %q but %q", line, lines)
		}
	}
}
