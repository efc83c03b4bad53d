package pebble

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/store"
)

// An imported store has the same objects with the same revisions, and goes on from there.
func TestImport(t *testing.T) {
	from := openTest(t, Config{})
	for i := range 20 {
		for range i%3 + 1 {
			if _, err := from.Commit(t.Context(), store.Txn{Do: []store.Op{{Key: fmt.Sprintf("k/%d", i), Value: make([]byte, store.MaxValue)}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	want, err := from.List(t.Context(), "", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: "copy", FS: vfs.NewMem()}
	if err := Import(cfg, want); err != nil {
		t.Fatal(err)
	}
	to := openTest(t, cfg)
	got, err := to.List(t.Context(), "", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(bytes.Equal)); diff != "" { // by bytes it takes minutes
		t.Errorf("the copy differs (-want +got):\n%s", diff)
	}
	if revision, err := to.Commit(t.Context(), pair("new")); err != nil || revision != want.Revision+1 {
		t.Errorf("commit: revision %d, %v", revision, err)
	}
	if err := Import(cfg, want); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("import over a store: %v", err)
	}
}
