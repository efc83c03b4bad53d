package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testtree"
)

// pauseEnv is the size of the volume in MiB for TestBackupPause.
const pauseEnv = "CARA_BACKUP_MIB"

// TestBackupPause measures how long a project is paused for its backup, if a hundredth of the data has changed since the first
// pass.
func TestBackupPause(t *testing.T) {
	size := 20
	if given := os.Getenv(pauseEnv); given != "" {
		var err error
		if size, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t, nil)
	each := int64(size) << 20 / 100
	fill := func(i int) error { return testtree.Random(filepath.Join(s.volume, fmt.Sprintf("file-%d", i)), each) }
	for i := range 100 {
		if err := fill(i); err != nil {
			t.Fatal(err)
		}
	}
	var changing time.Duration
	h := &hand{pause: func() error {
		begun := time.Now()
		defer func() { changing = time.Since(begun) }()
		return fill(7)
	}}
	begun := time.Now()
	result := s.backUp(t, h)
	h.did(t, "pause", "resume")
	snapshot := result.Snapshots[0]
	// Both passes count: the first added all files, and the second the one that changed.
	if want := 100*each + 1; snapshot.GetBytes() != want || snapshot.GetAddedBytes() < 101*each || snapshot.GetAddedBytes() > 102*each {
		t.Errorf("the snapshot has %d bytes, want %d; the backup added %d, want a little more than %d", snapshot.GetBytes(), want, snapshot.GetAddedBytes(), 101*each)
	}
	t.Logf("%d MiB: the backup took %s; after %d MiB have changed, the pause is %s", size, time.Since(begun)-changing, each>>20, result.Pause-changing)
}
