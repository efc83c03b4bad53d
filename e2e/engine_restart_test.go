package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestEngineKilledDuringARestart: an engine that is killed while it starts a container again refuses that container for ever.
// The service runs nevertheless.
func TestEngineKilledDuringARestart(t *testing.T) {
	t.Parallel()
	second := testdocker.SecondEngine(t)
	w := newWorld(t, options{listen: wildcard(t)})
	w.agent("n1", second.Host, second)
	name := w.name("p")
	w.apply(w.web(name, testimage.WebV1))
	w.running(name)
	id := w.equal("n1", second.Host)[name+".web"]
	ctx, cancel := w.patience()
	defer cancel()
	docker, err := testdocker.Client(second.Host)
	w.must(err)
	defer docker.Close()
	before, err := shims(id)
	w.must(err)
	w.must(docker.ContainerKill(ctx, id, "KILL"))
	// The shim is there before the container has started, and the engine needs a moment more.
	for {
		now, err := shims(id)
		w.must(err)
		if len(now) > 0 && now != before {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("container %.12s is not started again", id)
		}
	}
	start := w.stopEngine(second, "-KILL")
	start()
	w.must(testcluster.WaitFor(ctx, "project "+name+" runs in the engine", func(ctx context.Context) error {
		held, err := testdocker.List(ctx, second.Host, map[string]string{})
		if err != nil {
			return err
		}
		for _, c := range held.Containers {
			if c.State == "running" {
				return nil
			}
		}
		return errors.New("no container runs")
	}))
	w.running(name)
	w.equal("n1", second.Host)
	w.answers("n1", name+".test", "/", 200, "web v1")
}

// shims returns the process ids of the shims of a container.
func shims(id string) (string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return "", fmt.Errorf("list processes: %w", err)
	}
	var out []string
	for _, file := range files {
		argv, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(argv), "\x00-id\x00"+id+"\x00") {
			out = append(out, filepath.Base(filepath.Dir(file)))
		}
	}
	return strings.Join(out, " "), nil
}
