package git_test

import (
	"errors"
	"testing"

	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
)

// TestLookupOfAnUnfitFolder: the files that were found before the link are not returned, because the caller would read them.
func TestLookupOfAnUnfitFolder(t *testing.T) {
	r := overHTTP(t)
	r.Write("conf/a", "a")
	r.Symlink("conf/b", "a")
	r.Publish()
	tree, err := look(t, git.New(config()), r.Spec(), r.Secret())
	if err != nil {
		t.Fatal(err)
	}
	found, err := tree.Lookup(t.Context(), "conf")
	if _, unfit := errors.AsType[*sources.FileError](err); !unfit || found != nil {
		t.Errorf("found %v, %v", found, err)
	}
}
