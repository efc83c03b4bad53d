package backup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestNoFileOfTheNode: a container that replaces a directory by a link gets no file of the node into a snapshot. restic is told
// to read a file in the directory after the first pass. So it does what it does if the container replaces the directory when
// restic has already decided to read the file.
func TestNoFileOfTheNode(t *testing.T) {
	if problem := confine.Problem(); problem != "" {
		testneed.Missing(t, "the kernel must confine programs: %s", problem)
	}
	s := newSite(t, nil)
	s.write(t, "sub/secret", "of the project")
	text, err := os.ReadFile(s.Restic)
	if err != nil {
		t.Fatal(err)
	}
	script(t, s.Restic, `[ "$1" != backup ] || set -- "$@"/sub/secret`+"\n"+string(text))
	sub, outside := filepath.Join(s.volume, "sub"), t.TempDir()
	replaced := func() error {
		return errors.Join(os.Rename(sub, sub+"-away"), os.Symlink(outside, sub), os.WriteFile(filepath.Join(outside, "secret"), []byte("key of the node"), 0o600))
	}
	h := &hand{pause: replaced}
	if _, f := s.Run(t.Context(), s.job, h); f == nil || f.Reason != api.ReasonVolumeUnreadable {
		t.Errorf("failure %v, want %s", f, api.ReasonVolumeUnreadable)
	}
	h.did(t, "pause", "resume")
	if got := s.secrets(t); !slices.Equal(got, []string{"of the project"}) {
		t.Errorf("the snapshots have %q, want only the file of the first pass", got)
	}
	t.Run("an unconfined restic copies it", func(t *testing.T) {
		cmd := s.command(t, "backup", filepath.Base(s.volume))
		cmd.Path, cmd.Dir = s.Restic, filepath.Dir(s.volume)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := s.secrets(t); !slices.Contains(got, "key of the node") {
			t.Errorf("the snapshots have %q", got)
		}
	})
}

// secrets returns the content of the file sub/secret in each snapshot that has it.
func (s *site) secrets(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, id := range s.snapshots(t) {
		if content, err := s.command(t, "dump", id, "/_data/sub/secret").Output(); err == nil {
			out = append(out, string(content))
		}
	}
	return out
}

// TestSweep: what a killed agent has left is removed, and the cache stays.
func TestSweep(t *testing.T) {
	r := &Runner{Dir: t.TempDir()}
	for _, name := range []string{cacheDir, temporaryDir, "verify-shop"} {
		if err := errors.Join(os.Mkdir(filepath.Join(r.Dir, name), 0o700), os.WriteFile(filepath.Join(r.Dir, name, "file"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Sweep(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(r.Dir)
	if err != nil || len(left) != 1 || left[0].Name() != cacheDir {
		t.Errorf("left %v, %v", left, err)
	}
}
