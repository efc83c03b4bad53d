package git

import (
	"errors"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
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

// packOf returns a pack with these folders, and their hashes.
func packOf(t *testing.T, folders ...string) (p *pack, hashes []plumbing.Hash) {
	t.Helper()
	p = &pack{objects: map[plumbing.Hash]object{}}
	for _, tree := range folders {
		if err := p.keep(plumbing.TreeObject, []byte(tree), int64(len(tree))); err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, plumbing.ComputeHash(plumbing.TreeObject, []byte(tree)))
	}
	return p, hashes
}

// The size is that of the folders that are kept, whatever was added and replaced.
func TestKeptFoldersAreCounted(t *testing.T) {
	first, hashes := packOf(t, "a", "bb", "ccc")
	k := newKept(commit{}, first)
	if want := int64(3*perFolder + 6); k.size != want {
		t.Errorf("three folders count %d, want %d", k.size, want)
	}
	second, _ := packOf(t, "bb", "dddd")
	k = k.next(commit{}, second, []plumbing.Hash{hashes[0], hashes[0], hashes[1], plumbing.NewHash("ff")})
	if want := int64(3*perFolder + 9); k.size != want || len(k.trees) != 3 {
		t.Errorf("%d folders count %d, want 3 and %d", len(k.trees), k.size, want)
	}
}

// A name that changes and is in its folder twice is a problem, so the commit is read whole.
func TestDifferenceWithANameTwice(t *testing.T) {
	x, y := plumbing.NewHash("aa"), plumbing.NewHash("bb")
	old := entryOf("100644", "a b.yaml", x) + entryOf("100644", "b.yaml", x) + entryOf("100644", "c.yaml", x)
	for name, tt := range map[string]struct {
		now   string
		files int // added or changed
		err   error
	}{
		"a change":            {entryOf("100644", "a b.yaml", x) + entryOf("100644", "b.yaml", y) + entryOf("100644", "c.yaml", x), 1, nil},
		"a new file":          {old + entryOf("100644", "d.yaml", x), 1, nil},
		"one that was there":  {old + entryOf("100644", "b.yaml", y), 0, errWhole},
		"two that are new":    {old + entryOf("100644", "d.yaml", x) + entryOf("100644", "d.yaml", y), 0, errWhole},
		"a file and a folder": {old + entryOf("40000", "c.yaml", plumbing.ComputeHash(plumbing.TreeObject, nil)), 0, errWhole},
	} {
		t.Run(name, func(t *testing.T) {
			p, roots := packOf(t, "", old, tt.now)
			m, err := sources.NewMatch(&carav1.SourceSpec{})
			if err != nil {
				t.Fatal(err)
			}
			d := &difference{objs: p, match: m, before: newWalk(p, m, ""), after: newWalk(p, m, "")}
			if err := d.folders(t.Context(), "", roots[1], roots[2], 0); !errors.Is(err, tt.err) || tt.err == nil && len(d.after.files) != tt.files {
				t.Errorf("%d files, %v; want %d, %v", len(d.after.files), err, tt.files, tt.err)
			}
		})
	}
}
