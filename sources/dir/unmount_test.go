package dir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// An unmounted file system leaves an empty directory behind, on another device.
func TestUnmounted(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "a.yaml")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	opened, err := New(Config{}).Open(&carav1.SourceSpec{Dir: &carav1.DirSource{Path: root}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := opened.(*driver)
	if _, err := d.Probe(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Probe(t.Context(), 0); err != nil {
		t.Fatalf("emptied on the same device: %v", err)
	}
	d.dev++
	_, err = d.Probe(t.Context(), 0)
	var e *sources.Error
	if !errors.As(err, &e) || e.Reason != api.ReasonDirectoryUnavailable || e.Human {
		t.Errorf("err = %v", err)
	}
}
