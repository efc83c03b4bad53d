package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// rewritten is a file that somebody writes while it is read.
type rewritten struct {
	fs.File
	after fs.File
	read  bool
}

func (f *rewritten) Read(p []byte) (int, error) {
	f.read = true
	return f.File.Read(p)
}

func (f *rewritten) Stat() (fs.FileInfo, error) {
	if f.read {
		return f.after.Stat()
	}
	return f.File.Stat()
}

func TestAFileThatChangesWhileItIsRead(t *testing.T) {
	now := time.Unix(1000, 0)
	disk := fstest.MapFS{
		"a": {Data: []byte("whole"), ModTime: now}, "same": {Data: []byte("whole"), ModTime: now},
		"longer": {Data: []byte("whole and more"), ModTime: now}, "later": {Data: []byte("other"), ModTime: now.Add(time.Millisecond)},
	}
	for after, want := range map[string]error{"same": nil, "longer": sources.ErrMoved, "later": sources.ErrMoved} {
		f := &rewritten{File: opened(t, disk, "a"), after: opened(t, disk, after)}
		if data, _, err := readSettled(f); !errors.Is(err, want) || want == nil && string(data) != "whole" {
			t.Errorf("%s: %q, %v", after, data, err)
		}
	}
}

func opened(t *testing.T, disk fs.FS, name string) fs.File {
	t.Helper()
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestAFileThatWasEmptied: between the moments when an editor truncates a file and writes it, there is nothing in it.
func TestAFileThatWasEmptied(t *testing.T) {
	root, now := t.TempDir(), time.Unix(1_700_000_000, 0)
	at := func(name, content string, age time.Duration) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := New(Config{Now: func() time.Time { return now }}).Open(&carav1.SourceSpec{Dir: &carav1.DirSource{Path: root}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	at("web.yaml", "", emptied-time.Millisecond)
	if _, err := d.Probe(t.Context(), 0); !errors.Is(err, sources.ErrMoved) {
		t.Errorf("a file that was emptied a moment ago: %v", err)
	}
	at("web.yaml", "", emptied)
	if _, err := d.Probe(t.Context(), 0); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	at("web.yaml", "kind: Project", 0)
	revision, err := d.Probe(t.Context(), 0)
	if err != nil {
		t.Fatalf("a file that was written a moment ago: %v", err)
	}
	tree, err := d.Tree(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	at("used.txt", "", 0)
	if _, err := tree.Lookup(t.Context(), "used.txt"); !errors.Is(err, sources.ErrMoved) {
		t.Errorf("a file that a manifest uses: %v", err)
	}
}
