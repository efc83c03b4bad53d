package program

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/pebble"
)

// TestRecovered: the listing stays sorted, has one recovery, and each recovery is a new one.
func TestRecovered(t *testing.T) {
	page := store.Page{Revision: 7, KVs: []store.KV{{Key: "nodes/n1"}, {Key: "projects/p"}, {Key: "secrets/s"}}}
	once, err := recovered(page)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := recovered(once)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(p store.Page) (keys []string) {
		for _, kv := range p.KVs {
			keys = append(keys, kv.Key)
		}
		return keys
	}
	want := []string{"nodes/n1", "projects/p", "recoveries/cluster", "secrets/s"}
	if !slices.Equal(keys(once), want) || !slices.Equal(keys(twice), want) || len(page.KVs) != 3 {
		t.Errorf("%v, then %v, want %v", keys(once), keys(twice), want)
	}
	if slices.Equal(once.KVs[2].Value, twice.KVs[2].Value) {
		t.Error("two recoveries are one")
	}
}

// TestNoteBackup: a data directory from an archive is noted once, also if the server was killed before it removed the mark.
func TestNoteBackup(t *testing.T) {
	c := &ServerConfig{DataDir: t.TempDir()}
	db, err := pebble.Open(pebble.Config{Dir: c.storeDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	noted := func() int {
		t.Helper()
		if err := c.noteBackup(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		page, err := db.List(t.Context(), "", store.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.KVs)
	}
	if n := noted(); n != 0 {
		t.Errorf("%d objects without a mark", n)
	}
	mark := filepath.Join(c.DataDir, identity.FromBackupFile)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := noted(); n != 1 {
		t.Errorf("%d objects with a mark", n)
	}
	if _, err := os.Lstat(mark); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("the mark stays: %v", err)
	}
}
