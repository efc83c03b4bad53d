package scenario

import (
	"os"
	"os/exec"
	"testing"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// smallDisk mounts a file system of such a size at a new directory, which it returns.
func smallDisk(t *testing.T, disk, size string) string {
	t.Helper()
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size="+size+",mode=0700", "cara-robustness", disk).CombinedOutput(); err != nil {
		testneed.Missing(t, "mount a small file system: %v: %s (it needs root)", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", disk).CombinedOutput(); err != nil { //nolint:noctx // the test's context has ended
			t.Errorf("unmount %s: %v: %s", disk, err, out)
		}
	})
	return disk
}
