package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// linkedAway makes sub in the original a link to a directory outside, which has the file secret. rsync in PATH then also copies
// sub/secret through the link. So it does what rsync can do if a container replaces the directory sub when rsync has already
// decided to read a file in it. Newer versions of rsync have a protection of their own, which a path inside of the current directory
// avoids.
func (e *ends) linkedAway(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
if [ "$1" != --server ]; then
	left=$#
	for word; do
		shift
		left=$((left - 1))
		[ $left -gt 0 ] || set -- "$@" secret
		set -- "$@" "$word"
	done
	cd '` + e.from + `/sub'
fi
exec ` + testneed.Program(t, "rsync", "rsync") + ` "$@"
`
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "outside"), 0o700),
		os.WriteFile(filepath.Join(dir, "outside", "secret"), []byte("key of the node"), 0o600),
		os.Symlink(filepath.Join(dir, "outside"), filepath.Join(e.from, "sub")),
		os.Mkdir(filepath.Join(dir, "bin"), 0o700),
		os.WriteFile(filepath.Join(dir, "bin", "rsync"), []byte(script), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
}

// copied returns the content of the file secret of the copy, or "" if there is no such file.
func (e *ends) copied(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e.to, "secret"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(content)
}

// TestNoFileOfTheNode: a container that replaces a directory by a link gets no file of the node into the copy.
func TestNoFileOfTheNode(t *testing.T) {
	if problem := confine.Problem(); problem != "" {
		testneed.Missing(t, "the kernel must confine programs: %s", problem)
	}
	e := newEnds(t)
	e.write(t, "file", "x")
	e.linkedAway(t)
	err := e.sender.Copy(t.Context(), Pass{Running: true})
	if err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("got %v, want an error about the permission", err)
	}
	if got := e.copied(t); got != "" {
		t.Errorf("the copy has %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(e.to, "file")); string(got) != "x" {
		t.Errorf("the volume's own file has %q, %v", got, err)
	}
	t.Run("an unconfined rsync copies it", func(t *testing.T) {
		conn, err := e.sender.ask(t.Context(), &request{Operation: opCopy, UID: uid})
		if err != nil {
			t.Fatal(err)
		}
		code, messages, err := rsync(t.Context(), conn, hostile(t, sendArgs(e.from, helper(t), false)...), func(int64, int64) {})
		if got := e.copied(t); code != 0 || err != nil || got != "key of the node" {
			t.Errorf("the copy has %q: code %d, %s, %v", got, code, messages, err)
		}
	})
}
