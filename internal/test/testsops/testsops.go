// Package testsops runs the real sops program, for tests of what decrypts its files. It has no part in a push.
package testsops

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"filippo.io/age"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// Program is a sops program.
type Program struct {
	tb   testing.TB
	path string
	// Config is the content of .sops.yaml.
	Config string
}

// New returns the program. Building it takes minutes for the first time on a machine.
func New(tb testing.TB) *Program {
	tb.Helper()
	testneed.NotShort(tb)
	return &Program{tb: tb, path: build(tb)}
}

// Key is an age key pair.
type Key struct{ Public, Private string }

// NewKey makes a key pair.
func NewKey(tb testing.TB) Key {
	tb.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		tb.Fatal(err)
	}
	return Key{Public: id.Recipient().String(), Private: id.String()}
}

// Encrypt encrypts a file for a key, with further flags of `sops encrypt`. The name tells sops the format.
func (p *Program) Encrypt(name, plain string, key Key, flags ...string) string {
	p.tb.Helper()
	return p.Run(name, plain, key, append([]string{"encrypt", "--age", key.Public}, flags...)...)
}

// Run runs sops on a file with this content and returns its output. The private key of key is in its environment.
func (p *Program) Run(name, content string, key Key, args ...string) string {
	p.tb.Helper()
	file := filepath.Join(p.tb.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		p.tb.Fatal(err)
	}
	if p.Config != "" {
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), ".sops.yaml"), []byte(p.Config), 0o600); err != nil {
			p.tb.Fatal(err)
		}
	}
	cmd := exec.CommandContext(p.tb.Context(), p.path, append(args, file)...)
	cmd.Dir, cmd.Env = filepath.Dir(file), append(os.Environ(), "SOPS_AGE_KEY="+key.Private)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		p.tb.Fatalf("sops %v: %v\n%s", args, err, errs.Bytes())
	}
	return out.String()
}

// build returns the path of the program, and builds it if this machine does not have this version yet.
func build(tb testing.TB) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "sops")
	version, err := goCommand(tb.Context(), dir, "list", "-m", "-f", "{{.Version}}", "github.com/getsops/sops/v3")
	if err != nil {
		testneed.Missing(tb, "sops: %v", err)
	}
	path := filepath.Join(cache, "cara-test", "sops-"+string(bytes.TrimSpace(version)))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	if _, err := goCommand(tb.Context(), dir, "build", "-o", fresh, "github.com/getsops/sops/v3/cmd/sops"); err != nil {
		testneed.Missing(tb, "sops: %v", err)
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
