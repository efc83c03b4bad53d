package testrestic

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestNew: restic takes a repository as its own.
func TestNew(t *testing.T) {
	testneed.NotShort(t)
	dir := filepath.Join(t.TempDir(), "repository")
	New(t, dir)
	restic := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "restic", args...)
		cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+dir, "RESTIC_PASSWORD="+Password)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("restic %s: %v: %s", args, err, out)
		}
	}
	restic("backup", "testrestic.go")
	restic("check", "--read-data")
}
