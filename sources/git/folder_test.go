package git

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// folders are objects of which each is a folder.
type folders struct {
	data map[plumbing.Hash]string
	read int
}

func (f *folders) object(h plumbing.Hash) (object, error) {
	f.read++
	return object{plumbing.TreeObject, []byte(f.data[h])}, nil
}
func (f *folders) want(map[plumbing.Hash]struct{})                     {}
func (f *folders) blob(context.Context, plumbing.Hash) ([]byte, error) { return nil, errAbsent }
func (f *folders) close()                                              {}

func (f *folders) finder() *finder {
	return &finder{objs: f}
}

// TestLookupsInAWideFolder: what a lookup takes does not grow with the folder, because one push can cause many thousand lookups.
func TestLookupsInAWideFolder(t *testing.T) {
	var wide strings.Builder
	for i := range 4096 {
		wide.WriteString(entryOf("100644", fmt.Sprintf("%d", i), plumbing.Hash{1}))
	}
	objs := &folders{data: map[plumbing.Hash]string{{}: wide.String()}}
	l := objs.finder()
	allocs := testing.AllocsPerRun(10, func() {
		if found, err := l.find(t.Context(), "4095"); err != nil || len(found.Files) != 1 {
			t.Fatalf("found %v, %v", found, err)
		}
	})
	if allocs > 200 || objs.read != 1 {
		t.Errorf("a lookup allocates %.0f times, and the folder was read %d times", allocs, objs.read)
	}
}

// TestEntriesOfAFolder: entries are found in any order, and of two with one name it is the first.
func TestEntriesOfAFolder(t *testing.T) {
	first, second := plumbing.Hash{1}, plumbing.Hash{2}
	objs := &folders{data: map[plumbing.Hash]string{{}: entryOf("100644", "b", first) + entryOf("100644", "a", first) + entryOf("100755", "b", second)}}
	l := objs.finder()
	for name, hash := range map[string]plumbing.Hash{"a": first, "b": first} {
		if found, err := l.find(t.Context(), name); err != nil || found.Files[0].Hash != hash.String() {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
	_, err := l.find(t.Context(), "c")
	if unfit, ok := errors.AsType[*sources.FileError](err); !ok || !unfit.Absent {
		t.Errorf("c: %v", err)
	}
}

// TestMalformedFolder: a folder is checked as a whole.
func TestMalformedFolder(t *testing.T) {
	objs := &folders{data: map[plumbing.Hash]string{{}: entryOf("100644", "a", plumbing.Hash{1}) + "100644 b"}}
	if _, err := objs.finder().find(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), errMalformedTree.Error()) {
		t.Errorf("%v", err)
	}
}

// TestFoldersOfLookupsAreBounded: a repository on this machine can have any number of large folders.
func TestFoldersOfLookupsAreBounded(t *testing.T) {
	large := entryOf("100644", strings.Repeat("x", 4<<20), plumbing.Hash{1})
	objs := &folders{data: map[plumbing.Hash]string{}}
	var root strings.Builder
	for i := byte(1); i <= 20; i++ {
		objs.data[plumbing.Hash{i}] = large
		root.WriteString(entryOf("40000", fmt.Sprintf("d%d", i), plumbing.Hash{i}))
	}
	objs.data[plumbing.Hash{}] = root.String()
	l := objs.finder()
	for i := 1; i <= 20; i++ {
		_, err := l.find(t.Context(), fmt.Sprintf("d%d/a", i))
		if problem, ok := errors.AsType[*sources.Error](err); ok && problem.Reason == api.ReasonTooLarge {
			return
		}
	}
	t.Errorf("80 MiB of folders were read, and no lookup failed")
}
