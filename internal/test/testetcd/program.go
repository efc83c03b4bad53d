package testetcd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// serverModule is etcd's program, whose version the go.mod in the directory etcd pins.
const serverModule = "go.etcd.io/etcd/server/v3"

// Program finds or builds an etcd.
type Program func(tb testing.TB) string

// Versions are the etcds that the product must work with, by a name for subtests.
var Versions = map[string]Program{"new": New, "debian": Debian} //nolint:gochecknoglobals // a constant

// Debian returns the path of etcd of Debian's package.
func Debian(tb testing.TB) string {
	tb.Helper()
	return testneed.Program(tb, "etcd", "etcd-server")
}

// New returns the path of etcd in the version of the product's client. Building it takes minutes for the first time on a
// machine.
func New(tb testing.TB) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "etcd")
	version, err := goCommand(tb.Context(), dir, "list", "-m", "-f", "{{.Version}}", serverModule)
	if err != nil {
		testneed.Missing(tb, "etcd: %v", err)
	}
	path := filepath.Join(cache, "cara-test", "etcd-"+string(bytes.TrimSpace(version)))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	if _, err := goCommand(tb.Context(), dir, "build", "-o", fresh, serverModule); err != nil {
		testneed.Missing(tb, "etcd: %v", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		tb.Fatal(err)
	}
	return path
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
