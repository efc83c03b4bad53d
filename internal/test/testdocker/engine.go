package testdocker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/internal/test/testneed"
)

const answerTime = time.Minute // an engine of a busy machine may be slow

// ErrNoEngine means that no Docker engine is reachable.
var ErrNoEngine = errors.New("no Docker engine answers: start one with hack/engine up, or set DOCKER_HOST")

// Engine returns the DOCKER_HOST of a working engine. Without one it skips the test, or fails it if E2E=1. With -short it
// skips the test.
func Engine(tb testing.TB) string {
	tb.Helper()
	testneed.NotShort(tb)
	host, err := Find(tb.Context())
	if errors.Is(err, ErrNoEngine) {
		testneed.Missing(tb, "%v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return host
}

// Find returns the first reachable engine of CARA_TEST_DOCKER_HOST, DOCKER_HOST, the default socket and hack/engine. If one
// of the variables is set, that engine must be reachable, because a fallback would test something else.
func Find(ctx context.Context) (string, error) {
	if named := cmp.Or(os.Getenv("CARA_TEST_DOCKER_HOST"), os.Getenv("DOCKER_HOST")); named != "" {
		if err := ping(ctx, named); err != nil {
			return "", fmt.Errorf("%w (%w)", ErrNoEngine, err)
		}
		return named, nil
	}
	for _, host := range []string{client.DefaultDockerHost, "unix://" + filepath.Join(stateDir(), "main", "docker.sock")} {
		if ping(ctx, host) == nil {
			return host, nil
		}
	}
	return "", ErrNoEngine
}

// stateDir returns where hack/engine stores its engines.
func stateDir() string {
	return cmp.Or(os.Getenv("CARA_ENGINE_DIR"), filepath.Join(cmp.Or(os.Getenv("XDG_STATE_HOME"), "/var/tmp"), "cara-engine"))
}

func ping(ctx context.Context, host string) error {
	docker, err := Client(host)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	_, err = docker.Ping(ctx)
	return errors.Join(err, docker.Close())
}

// Client returns a client of the engine at host. The caller closes it.
func Client(host string) (*client.Client, error) {
	docker, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("open engine %s: %w", host, err)
	}
	return docker, nil
}
