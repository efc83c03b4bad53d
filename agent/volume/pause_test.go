package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testtree"
)

// pauseEnv is the size of the volume in MiB for TestPause.
const pauseEnv = "CARA_MOVE_MIB"

// TestPause measures what a project is stopped for: the second pass and the verification, after a hundredth of the data has
// changed.
func TestPause(t *testing.T) {
	size := 100
	if given := os.Getenv(pauseEnv); given != "" {
		var err error
		if size, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	e := newEnds(t)
	each := int64(size) << 20 / 100
	name := func(i int) string { return filepath.Join(e.from, fmt.Sprintf("file-%d", i)) }
	for i := range 100 {
		if err := testtree.Random(name(i), each); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	e.copy(t, Pass{Running: true})
	copied := time.Since(begun)
	e.compare(t, true)
	first := time.Since(begun)
	if err := testtree.Random(name(7), each); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	e.copy(t, Pass{})
	second := time.Since(begun)
	c := e.compare(t, false)
	if !c.Equal() || c.Bytes != 100*each {
		t.Errorf("%d bytes: %s", c.Bytes, c)
	}
	t.Logf("%d MiB: the first pass took %s, %s of it for hashes; after %d MiB have changed, the pause is %s, %s of it for the comparison",
		size, first, first-copied, each>>20, time.Since(begun), time.Since(begun)-second)
}
