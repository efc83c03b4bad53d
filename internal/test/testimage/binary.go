package testimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// architecture is that of this machine, on which the engine runs.
const architecture = runtime.GOARCH

// Root returns the root of the source tree: the nearest directory with a go.mod, from the working directory upwards.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the source tree: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the source tree: no go.mod in %s or above it", start)
		}
	}
}

func linkerFlags(version string) string { return "-s -w -X main.version=" + version }

// programContent returns a hash of the program's sources and everything else that determines the binary. The programs
// import only the standard library, which the toolchain's version identifies.
func programContent(program, version string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	sources, err := filepath.Glob(filepath.Join(root, "fixtures", "images", program, "*.go"))
	if err != nil {
		return "", fmt.Errorf("list the sources of %s: %w", program, err)
	}
	if len(sources) == 0 {
		return "", fmt.Errorf("list the sources of %s: none in %s/fixtures/images", program, root)
	}
	sum := sha256.New()
	fmt.Fprintln(sum, layerFormat, runtime.Version(), architecture, linkerFlags(version))
	for _, source := range sources { // sorted by Glob
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			return "", fmt.Errorf("read the sources of %s: %w", program, err)
		}
		fmt.Fprintln(sum, filepath.Base(source), len(text))
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// binary returns the program's static binary, from the cache or newly built. Concurrent callers all build and rename it;
// the result is the same.
func binary(ctx context.Context, program, version, content string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // without HOME, as in some pipelines
	}
	dir := filepath.Join(cache, "cara-fixtures", content)
	path := filepath.Join(dir, program)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the binary cache: %w", err)
	}
	fresh, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("make the binary cache: %w", err)
	}
	err = compile(ctx, program, version, filepath.Join(fresh, program))
	if err == nil {
		err = os.Rename(filepath.Join(fresh, program), path)
	}
	if err := errors.Join(err, os.RemoveAll(fresh)); err != nil {
		return "", err
	}
	return path, nil
}

func compile(ctx context.Context, program, version, output string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", linkerFlags(version),
		"-o", output, "./fixtures/images/"+program)
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
