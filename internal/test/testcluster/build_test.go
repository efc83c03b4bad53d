package testcluster

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestPlacedProgramStaysWhatItIs: a later build of the shared folder does not change a program that a test runs.
func TestPlacedProgramStaysWhatItIs(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(to, "what was there before")
	write(from, "one")
	if err := place(from, to); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(from); err != nil { // as go build does
		t.Fatal(err)
	}
	write(from, "two")
	if got, err := os.ReadFile(to); string(got) != "one" || err != nil {
		t.Errorf("the placed program is %q (%v), want %q", got, err, "one")
	}
}

// TestLock: one holder at a time, and a waiter that gives up says for what it waited.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var holders atomic.Int32
	var all errgroup.Group
	for range 8 {
		all.Go(func() error {
			unlock, err := lock(t.Context(), path)
			if err != nil {
				return err
			}
			if n := holders.Add(1); n != 1 {
				t.Errorf("%d hold the lock", n)
			}
			holders.Add(-1)
			return unlock()
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lock(short, path); text(err) == "" {
		t.Error("the lock was given twice")
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}
