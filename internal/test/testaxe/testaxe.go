// Package testaxe checks a page in a real browser for barriers: roles, labels, contrast and order, with the rules of axe-core.
//
// It has no part in a push: it looks at the page that shows one. The version of axe-core is in package.json and
// package-lock.json, with its hash. Invariant: nothing of it is in a program of Cara.
package testaxe

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caravanserai/cara/internal/test/testbrowser"
	"github.com/caravanserai/cara/internal/test/testneed"
)

//go:embed package.json
var wanted []byte

//go:embed package-lock.json
var locked []byte

// Script returns the source of axe-core. npm installs it once on a machine; without npm the test is skipped.
func Script(t testing.TB) string {
	t.Helper()
	npm := testneed.Program(t, "npm", "npm")
	script, err := install(t.Context(), npm)
	if err != nil {
		testneed.Missing(t, "axe-core: %v", err)
	}
	return script
}

// install returns the script from the user's cache, and fills the cache first if needed.
func install(ctx context.Context, npm string) (string, error) {
	var pinned struct {
		DevDependencies map[string]string `json:"devDependencies"`
	}
	if err := json.Unmarshal(wanted, &pinned); err != nil {
		return "", fmt.Errorf("read package.json: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "cara-test", "axe-core-"+pinned.DevDependencies["axe-core"])
	file := filepath.Join("node_modules", "axe-core", "axe.min.js")
	if script, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
		return string(script), nil
	}
	fresh := fmt.Sprintf("%s.%d", dir, os.Getpid()) // other processes may install it, too
	defer func() { _ = os.RemoveAll(fresh) }()
	if err := os.MkdirAll(fresh, 0o755); err != nil {
		return "", err
	}
	for name, body := range map[string][]byte{"package.json": wanted, "package-lock.json": locked} {
		if err := os.WriteFile(filepath.Join(fresh, name), body, 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = fresh
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("npm ci: %w: %s", err, said.Bytes())
	}
	script, err := os.ReadFile(filepath.Join(fresh, file))
	if err != nil {
		return "", err
	}
	_ = os.Rename(fresh, dir) // another process may have been first
	return string(script), nil
}

// Barriers returns what axe-core finds in the document of a tab, one text for each rule that is broken. script is that of Script.
func Barriers(tab *testbrowser.Tab, script string) (found []string, err error) {
	const run = `window.barriers = null; axe.run(document, {resultTypes: ["violations"]}).then(
		(r) => { window.barriers = r.violations.map((v) => v.id + ": " + v.help + ": " + v.nodes.slice(0, 5).map((n) => n.html.slice(0, 200) + " " + n.any.map((a) => a.message).join("; ")).join("\n  ")); },
		(e) => { window.barriers = ["axe failed: " + e]; }); 0`
	if err := tab.Eval("window.axe || ("+"() => {"+script+"\n})(); 0", nil); err != nil {
		return nil, err
	}
	if err := tab.Eval(run, nil); err != nil {
		return nil, err
	}
	if err := tab.Until("window.barriers"); err != nil {
		return nil, err
	}
	return found, tab.Eval("window.barriers", &found)
}
