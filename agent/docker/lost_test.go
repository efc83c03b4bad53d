package docker

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// lostProcess starts a process in a control group like that of a container, and returns the container's id.
func lostProcess(t *testing.T) (id string) {
	t.Helper()
	random := make([]byte, 32)
	rand.Read(random)
	id = hex.EncodeToString(random)
	root := "/sys/fs/cgroup/pids"
	if _, err := os.Stat(root); err != nil {
		root = "/sys/fs/cgroup"
	}
	group := filepath.Join(root, "test-"+id)
	if err := os.Mkdir(group, 0o755); err != nil {
		testneed.Missing(t, "a control group cannot be made: %v", err)
	}
	process := exec.CommandContext(t.Context(), "sleep", "1h")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = process.Wait() // it ends by a signal
	}()
	t.Cleanup(func() {
		_ = process.Process.Kill() // if the test has failed
		<-gone
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(process.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	return id
}

func nothingLeft(t *testing.T, id string) {
	t.Helper()
	if left := processes()[id]; len(left) > 0 {
		t.Fatalf("processes %v still run", left)
	}
}

func newEngine(t *testing.T) *Engine {
	t.Helper()
	e, err := New(Config{Host: testdocker.Engine(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// TestStartOfALostContainer: only once the process that the engine has lost is gone, a new container may take the place.
func TestStartOfALostContainer(t *testing.T) {
	e := newEngine(t)
	id := lostProcess(t)
	inUse := errors.New("Error response from daemon: id already in use")
	if err := e.startFailed(t.Context(), id, inUse); !errors.Is(err, engine.ErrStuck) {
		t.Errorf("a start beside a lost process: %v", err)
	}
	nothingLeft(t, id)
	if err := e.startFailed(t.Context(), id, inUse); !errors.Is(err, engine.ErrLost) || errors.Is(err, engine.ErrStuck) {
		t.Errorf("a start beside a lost process that cannot be seen: %v", err)
	}
}

// TestRemovalOfALostContainer: no process outlives the removal of its container, even if the engine has forgotten both.
func TestRemovalOfALostContainer(t *testing.T) {
	e := newEngine(t)
	id := lostProcess(t)
	if err := e.RemoveContainer(t.Context(), id); err != nil {
		t.Error(err)
	}
	nothingLeft(t, id)
}
