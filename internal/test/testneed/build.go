package testneed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"testing"
)

// Pinned is a Go program that tests run. The version is in a go.mod of its own, so that Cara does not depend on the program.
type Pinned struct {
	Name    string // of the program
	Folder  string // with the go.mod, in internal/test
	Module  string // the program's own
	Package string // below Module. Not used if Folder has a main.go, which uses Module
	Overlay string // a file for go build, or empty. The name of its folder has a hash of what it puts in place of other files
}

// built has the programs that this process has found or built.
var built = struct { //nolint:gochecknoglobals // so that each is looked up once in a test process, and built by one test at a time
	sync.Mutex
	paths map[Pinned]string
}{paths: map[Pinned]string{}}

// Build returns the path of a program in the user's cache. Building it takes minutes for the first time on a machine.
func Build(tb testing.TB, p Pinned) string {
	tb.Helper()
	built.Lock()
	defer built.Unlock()
	if built.paths[p] == "" {
		found, err := p.build(tb.Context())
		if err != nil {
			Missing(tb, "%s: %v", p.Name, err)
		}
		built.paths[p] = found
	}
	return built.paths[p]
}

func (p Pinned) build(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	mod, err := goCommand(ctx, "", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(string(bytes.TrimSpace(mod))), "internal", "test", p.Folder)
	version, err := goCommand(ctx, dir, "list", "-m", "-f", "{{.Version}}", p.Module)
	if err != nil {
		return "", err
	}
	pkg, name := path.Join(p.Module, p.Package), p.Name+"-"+string(bytes.TrimSpace(version))
	if source, err := os.ReadFile(filepath.Join(dir, "main.go")); err == nil { // the folder has the program itself
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			return "", err
		}
		pkg, name = ".", fmt.Sprintf("%s-%x", name, sha256.Sum256(append(mod, source...)))
	}
	build := []string{"build"}
	if p.Overlay != "" {
		name += "-" + filepath.Base(filepath.Dir(p.Overlay))
		build = append(build, "-overlay", p.Overlay)
	}
	program := filepath.Join(cache, "cara-test", name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fresh := fmt.Sprintf("%s.%d", program, os.Getpid()) // other processes may build it, too
	if _, err := goCommand(ctx, dir, append(build, "-o", fresh, pkg)...); err != nil {
		return "", err
	}
	return program, os.Rename(fresh, program)
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %v: %w: %s", args, err, stderr.Bytes())
	}
	return out, nil
}
