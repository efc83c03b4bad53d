// Package testneed finds or builds the programs that a test needs. If a prerequisite is missing, it skips the test, or fails it
// if E2E=1 (in CI and in "make test").
//
// It has no part in a push; the other test packages (testdocker, testgit, testregistry) use it. It has one rule: CI never
// passes because a prerequisite was missing.
package testneed

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Missing skips the test, or fails it if E2E=1. The message says what is missing and how to install it.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("E2E") == "1" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// NotShort skips a test that needs an engine or takes long, if go test runs with -short.
func NotShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("not with -short")
	}
}

// AtOnce lets n parallel tests of a package run at once instead of one per core, unless the flag -parallel says how many.
// TestMain of a package whose tests mostly wait calls it before it runs them.
func AtOnce(n int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == parallelFlag })
	if !given {
		if err := flag.Set(parallelFlag, strconv.Itoa(n)); err != nil {
			panic(err) // the testing package has no such flag
		}
	}
}

// parallelFlag is go test's -parallel in a test binary.
const parallelFlag = "test.parallel"

// Program returns the path of a program that the test needs. debianPackage is the package that contains it.
func Program(tb testing.TB, name, debianPackage string) string {
	tb.Helper()
	path, err := Look(name)
	if err != nil {
		Missing(tb, "%s is not installed: apt-get install %s", name, debianPackage)
	}
	return path
}

// Look finds a program. It also searches the directories of daemons, which may not be in PATH.
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
