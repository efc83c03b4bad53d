package git

import (
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// What drivers keep is counted, limited, and released.
func TestKeptFoldersAreLimited(t *testing.T) {
	g := New(Config{})
	folders := func(size int64) *kept { return &kept{size: size, trees: map[plumbing.Hash]object{}} }
	var drivers []*driver
	for range 2*maxAllKept/maxKept + 1 {
		d := &driver{git: g}
		d.keep(folders(maxKept))
		drivers = append(drivers, d)
	}
	if g.kept != maxAllKept {
		t.Errorf("drivers keep %d bytes, at most %d", g.kept, maxAllKept)
	}
	drivers[0].keep(folders(maxKept + 1))
	if drivers[0].kept != nil || g.kept != maxAllKept-maxKept {
		t.Errorf("a driver keeps more than %d bytes; all keep %d", maxKept, g.kept)
	}
	for _, d := range drivers {
		d.keep(nil)
	}
	if g.kept != 0 {
		t.Errorf("%d bytes are counted and nobody keeps them", g.kept)
	}
}
