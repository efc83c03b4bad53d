package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testtree"
)

// TestRestoreOfATree: everything that a file system has is restored, except for sockets and the links between FIFOs. With pauseEnv, the tree has 20,000 files
// and one of that size.
func TestRestoreOfATree(t *testing.T) {
	if os.Geteuid() != 0 {
		testneed.Missing(t, "root, for devices and owners")
	}
	s := newSite(t, nil)
	files, size := 500, 1
	if given := os.Getenv(pauseEnv); given != "" {
		var err error
		if size, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
		files = 20_000
	}
	testtree.Fill(t, s.volume, files)
	large := filepath.Join(s.volume, "large")
	if err := errors.Join(testtree.Random(large, int64(size)<<20), os.Remove(filepath.Join(s.volume, "socket")), os.Remove(filepath.Join(s.volume, "fifo2"))); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	s.backUp(t, &hand{})
	copied := time.Now()
	dir, _ := s.restored(t, "")
	t.Logf("%d files and %d MiB: the backup took %s, the restore %s", files, size, copied.Sub(begun), time.Since(copied))
	testtree.Same(t, s.volume, dir)
}
