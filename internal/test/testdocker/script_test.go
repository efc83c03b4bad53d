package testdocker

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// life is what a developer's machine may do to an engine of hack/engine, as a script that prints what it saw.
const life = `set -euo pipefail
ip link set lo up
host=$($ENGINE up)
[[ $host == "unix://$CARA_ENGINE_DIR/main/docker.sock" ]] && echo started
[[ $($ENGINE up) == "$host" ]] && echo found again
pid=$($ENGINE status | awk '{print $3}')
kill -KILL "$pid"
$ENGINE up >a & one=$!
$ENGINE up >b & two=$!
wait "$one" && wait "$two"
[[ $(<a) == "$host" && $(<b) == "$host" && $($ENGINE status | wc -l) == 1 ]] && echo one engine after a crash and two callers
[[ $($ENGINE status | awk '{print $3}') != "$pid" ]] && echo another process
$ENGINE down
[[ -z $($ENGINE status) ]] && echo stopped
echo 1 >"$CARA_ENGINE_DIR/main/docker.pid"
$ENGINE down
kill -0 1 && echo a stranger lives
`

// TestEngineScript starts, crashes and stops an engine in separate namespaces.
func TestEngineScript(t *testing.T) {
	testneed.NotShort(t)
	for program, brings := range map[string]string{"dockerd": "docker.io", "unshare": "util-linux", "busybox": "busybox-static"} {
		testneed.Program(t, program, brings)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root makes namespaces; the tests of SecondEngine go through sudo")
	}
	if ping(t.Context(), client.DefaultDockerHost) == nil {
		t.Skip("an engine answers at the default socket, so hack/engine would start none")
	}
	root, err := testimage.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	command := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child",
		"--mount-proc", "bash", "-c", life)
	command.Dir = dir
	command.Env = append(os.Environ(), "ENGINE="+filepath.Join(root, "hack", "engine"), "CARA_ENGINE_DIR="+dir+"/e", "DOCKER_HOST=")
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	want := "started\nfound again\none engine after a crash and two callers\nanother process\nstopped\na stranger lives\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, saw\n%s\nwant\n%s\nit said\n%s", err, out, want, complaint.String())
	}
}

// TestForgottenEngineIsTakenAway lets the owner of a second engine die.
func TestForgottenEngineIsTakenAway(t *testing.T) {
	alive := SecondEngine(t)
	owner := exec.CommandContext(t.Context(), "true")
	if err := owner.Run(); err != nil {
		t.Fatal(err)
	}
	forgotten := &Second{Name: "f" + strings.TrimPrefix(alive.Name, "t")}
	t.Cleanup(func() {
		if err := forgotten.Drop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if _, err := script(t.Context(), "second", forgotten.Name, strconv.Itoa(owner.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if _, err := script(t.Context(), "second", alive.Name, strconv.Itoa(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/sys/class/net/cv-" + forgotten.Name); !os.IsNotExist(err) {
		t.Errorf("the engine of a dead owner is still there (%v)", err)
	}
	if err := ping(t.Context(), alive.Host); err != nil {
		t.Errorf("the engine of a living owner: %v", err)
	}
}
