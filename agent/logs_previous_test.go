package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestLogOfAReplacedContainer: the end of a container's log outlives the container and a restart of the agent, and contains
// no value of a Secret. It is removed with the project.
func TestLogOfAReplacedContainer(t *testing.T) {
	f := newFaked(t)
	spec := startFirst("job", "-lines", "3", "-after", "1h")
	spec.Services[0].Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
	f.secrets["p"] = map[string][]byte{"db/p": []byte("line 2 of 3")}
	before := f.up(t, spec)["cara-p.a"]
	f.edit("p", func(p *carav1.Project) { p.Status.RestartToken, p.Status.Restarts = "t1", map[string]string{"a": "t1"} })
	waitUntil(t, func() bool { c := f.containers(t); return len(c) == 1 && c["cara-p.a.2"].State == engine.StateRunning })
	if f.containers(t)["cara-p.a.2"].ID == before.ID {
		t.Fatal("the container was not replaced")
	}
	f.stop()
	f.run(t)
	waitUntil(t, func() bool { c, ok := f.containers(t)["cara-p.a.2"]; return ok && c.State == engine.StateRunning })
	f.connected(t)
	f.open("previous", logsOf(&carav1.LogsRequest{Previous: true}))
	m := f.over(t, "previous")
	if len(m) != 3 || m[0].GetLog().GetLine() != "job v1 line 1 of 3" || m[0].GetLog().GetTime() == nil || m[0].GetLog().GetService() != "a" {
		t.Errorf("previous: %v", m)
	}
	for _, l := range m {
		if strings.Contains(l.GetLog().GetLine(), "line 2 of 3") {
			t.Errorf("a value was kept: %v", l)
		}
	}
	f.open("last", logsOf(&carav1.LogsRequest{Previous: true, Tail: 1}))
	if m := f.over(t, "last"); len(m) != 1 || m[0].GetLog().GetLine() != "job v1 line 3 of 3" {
		t.Errorf("the last line: %v", m)
	}
	f.terminate("p")
	f.wait(t, "p", gone)
	waitUntil(t, func() bool {
		left, err := filepath.Glob(filepath.Join(f.cfg.DataDir, "logs", "*"))
		return err == nil && len(left) == 0
	})
}

// TestNoLogOfUnknownValues: an agent that does not know a container's Secret values stores no log of it.
func TestNoLogOfUnknownValues(t *testing.T) {
	f := newFaked(t)
	spec := services("job")
	spec.Services[0].Args = []string{"-lines", "3", "-after", "1h"}
	spec.Services[0].Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
	f.secrets["p"] = map[string][]byte{"db/p": []byte("hunter2")}
	f.up(t, spec)
	f.stop()
	f.secrets["p"] = map[string][]byte{"db/p": []byte("correct horse")} // the next agent never hears of the value before
	f.run(t)
	waitUntil(t, func() bool { return f.told("SecretChanged") > 0 })
	f.wait(t, "p", func(p *carav1.Project) bool { return api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) })
	waitUntil(t, func() bool { c := f.containers(t); return len(c) == 1 })
	if left, err := os.ReadDir(filepath.Join(f.cfg.DataDir, "logs")); err == nil && len(left) > 0 {
		t.Errorf("kept: %v", left)
	}
}

// connected waits until the agent has said something on its stream.
func (f *faked) connected(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	beats := len(f.beats)
	f.mu.Unlock()
	waitUntil(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.beats) > beats })
}
