package testdocker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// Second is an engine in a separate network namespace, which is like a second machine for the network. Its containers are
// reachable only from inside the namespace, so use Command to start an agent for it.
type Second struct {
	Name    string
	Host    string // DOCKER_HOST
	NetNS   string // path of the namespace
	Address string // its address, reachable from this machine
	Gateway string // this machine's address, reachable from inside
}

// ErrNoSecond means that this machine cannot run a second engine: no root, or no network namespaces.
var ErrNoSecond = errors.New("no second engine in a network namespace")

// SecondEngine starts a second engine for the test and removes it afterwards. If that is impossible, it skips the test, or
// fails it if E2E=1.
func SecondEngine(tb testing.TB) *Second {
	tb.Helper()
	return secondEngine(tb)
}

// SecondEngineOn is SecondEngine with an engine that keeps its data in a directory of the caller.
func SecondEngineOn(tb testing.TB, data string) *Second {
	tb.Helper()
	return secondEngine(tb, "CARA_ENGINE_DATA="+data)
}

func secondEngine(tb testing.TB, env ...string) *Second {
	tb.Helper()
	testneed.NotShort(tb)
	// Names must differ between concurrent test binaries, and within one.
	second, err := startSecond(tb.Context(), "t"+strconv.FormatInt(int64(os.Getpid()), 36)+"-"+short(tb.Name()), env...)
	if errors.Is(err, ErrNoSecond) {
		testneed.Missing(tb, "%v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := second.Drop(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return second
}

// short returns four characters for a test's name.
func short(text string) string {
	hash := uint32(2166136261)
	for _, b := range []byte(text) {
		hash = (hash ^ uint32(b)) * 16777619
	}
	return fmt.Sprintf("%04x", hash&0xFFFF)
}

// StartSecond is SecondEngine for programs. The name has at most 12 characters of a-z, 0-9 and '-'. An engine without a
// Drop is removed by the next use of hack/engine.
func StartSecond(ctx context.Context, name string) (*Second, error) { return startSecond(ctx, name) }

// startSecond gives hack/engine these additional environment variables.
func startSecond(ctx context.Context, name string, env ...string) (*Second, error) {
	out, err := scriptIn(ctx, env, "second", name, strconv.Itoa(os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSecond, err)
	}
	second := &Second{Name: name}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "DOCKER_HOST":
			second.Host = value
		case "NETNS":
			second.NetNS = value
		case "ADDRESS":
			second.Address = value
		case "GATEWAY":
			second.Gateway = value
		}
	}
	if second.Host == "" || second.NetNS == "" || second.Address == "" || second.Gateway == "" {
		return nil, fmt.Errorf("start engine %s: hack/engine said %q", name, out)
	}
	return second, nil
}

// Command returns a command that runs in the engine's network namespace. It runs as root, with sudo if necessary, like
// StartSecond.
func (s *Second) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	inside := append([]string{"nsenter", "--net=" + s.NetNS, "--", name}, args...)
	if os.Geteuid() != 0 {
		inside = append([]string{"sudo", "-n"}, inside...)
	}
	return exec.CommandContext(ctx, inside[0], inside[1:]...)
}

// Mirror lets the engine ask a mirror, such as "http://GATEWAY:PORT", for the images of Docker Hub from now on.
func (s *Second) Mirror(ctx context.Context, url string) error {
	if _, err := script(ctx, "mirror", s.Name, url); err != nil {
		return fmt.Errorf("set the mirror of engine %s: %w", s.Name, err)
	}
	return nil
}

// Drop removes the engine, everything in it, and its namespace.
func (s *Second) Drop(ctx context.Context) error {
	if _, err := script(ctx, "drop", s.Name); err != nil {
		return fmt.Errorf("drop engine %s: %w", s.Name, err)
	}
	return nil
}

// script runs hack/engine and returns its standard output.
func script(ctx context.Context, args ...string) (string, error) { return scriptIn(ctx, nil, args...) }

// scriptIn is script with additional environment variables.
func scriptIn(ctx context.Context, env []string, args ...string) (string, error) {
	root, err := testimage.Root()
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, filepath.Join(root, "hack", "engine"), args...)
	command.Env = append(os.Environ(), env...)
	var out, complaint bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaint
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("hack/engine %s: %w: %s", args[0], err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}
