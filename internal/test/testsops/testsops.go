// Package testsops runs the real sops program, for tests of what decrypts its files. It has no part in a push.
package testsops

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
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

// New returns the program.
func New(tb testing.TB) *Program {
	tb.Helper()
	testneed.NotShort(tb)
	return &Program{tb: tb, path: testneed.Build(tb, testneed.Pinned{
		Name: "sops", Folder: "testsops/sops", Module: "github.com/getsops/sops/v3", Package: "cmd/sops",
	})}
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
