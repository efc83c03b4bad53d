// Package testneed says what happens when the machine lacks what a test needs: at home the test is skipped, where
// E2E=1 (the pipeline, "make test") it fails.
//
// It stands outside the line from a git push to a running container, below the test support that stands around it
// (testdocker, testgit, testregistry). It keeps one rule in one place: a pipeline is never green because what it
// should have tested was not there.
package testneed

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Missing skips the test, or fails it where E2E=1. The message says what is missing and how to get it.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("E2E") == "1" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// NotShort skips a test that needs an engine or takes long when the caller asked for the fast ones only (go test -short).
func NotShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("not with -short")
	}
}

// Program returns the path of a program that the test needs. debianPackage is what brings it.
func Program(tb testing.TB, name, debianPackage string) string {
	tb.Helper()
	path, err := Look(name)
	if err != nil {
		Missing(tb, "%s is not installed: apt-get install %s", name, debianPackage)
	}
	return path
}

// Look finds a program, also where the daemons are, which are not in everybody's PATH.
func Look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}
