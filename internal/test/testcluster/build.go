package testcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caravanserai/cara/internal/test/testclock"
)

// programs are what Build builds, below cmd.
func programs() []string { return []string{"cara-server", "cara-agent", "caractrl"} }

// Build puts the three programs of this tree into dir. It links them in the tree's folder .cache/programs, which all
// packages and runs share: `go build` links only what has changed there since the last time.
func Build(ctx context.Context, dir string) error { return buildIn(ctx, "programs", dir) }

// BuildStepped is Build for programs whose wall clock a test steps; see testclock. The first time, it builds everything.
func BuildStepped(ctx context.Context, dir string) error {
	overlay, err := testclock.Overlay(ctx)
	if err != nil {
		return err
	}
	return buildIn(ctx, "stepped", dir, "-overlay", overlay)
}

// buildIn builds in a folder of the tree's .cache, with more flags for go build.
func buildIn(ctx context.Context, folder, dir string, flags ...string) error {
	root, err := Root(ctx)
	if err != nil {
		return err
	}
	cache := filepath.Join(root, ".cache", folder)
	for _, d := range []string{cache, dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("build programs: %w", err)
		}
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	return errors.Join(build(ctx, root, cache, dir, flags), unlock())
}

// build links the programs in cache, as `make build` does, and puts them into dir. The caller holds the lock of cache.
func build(ctx context.Context, root, cache, dir string, flags []string) error {
	argv := append([]string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", cache + string(filepath.Separator)}, flags...)
	for _, program := range programs() {
		argv = append(argv, "./cmd/"+program)
	}
	r, err := runCommand(ctx, root, append(os.Environ(), "CGO_ENABLED=0"), "", argv...)
	if err == nil && r.Code != 0 {
		err = errors.New(r.Stderr)
	}
	if err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	for _, program := range programs() {
		if err := place(filepath.Join(cache, program), filepath.Join(dir, program)); err != nil {
			return fmt.Errorf("build programs: %w", err)
		}
	}
	return nil
}

// place makes the file at to the one at from: a link, or a copy on another file system. A later build replaces the file at
// from and leaves its content alone, so that a link stays what it is.
func place(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// lock takes a file's lock, which other processes respect, too. The lock ends with the process at the latest.
func lock(ctx context.Context, path string) (unlock func() error, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = WaitFor(ctx, "no other process builds", func(context.Context) error {
		return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file.Close, nil
}

// Root returns the directory of this module.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
