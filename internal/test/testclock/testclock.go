// Package testclock steps the wall clock of one real program, as an operator or a broken time server does with a machine's.
//
// It concerns every program on the line of a push that compares times. The program's own code is unchanged: it is built with a time
// package whose Now adds what a file says. Invariants: the monotonic reading stays, as on a machine whose clock is set, so timers and
// time-outs do not move; and without the variable that names the file, the program has the machine's clock.
package testclock

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

//go:embed step.go.txt
var source []byte

// Clock is the wall clock of one program.
type Clock struct{ path string }

// New returns a clock in a new file. It is the machine's until Step.
func New(path string) (*Clock, error) {
	c := &Clock{path}
	return c, c.Step(0)
}

// Env is the variable of the program's environment. It needs a program that was built with an overlay.
func (c *Clock) Env() string { return "CARA_TEST_CLOCK=" + c.path }

// Step sets the clock to so much, in whole seconds, after the machine's. It takes effect at once, also in a program that runs.
func (c *Clock) Step(ahead time.Duration) error {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("step a clock: %w", err)
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), 0)
	return errors.Join(err, f.Close())
}

// Overlay writes a file for `go build -overlay` into the user's cache, and returns its path. Its folder has a hash of the content.
func Overlay(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find Go: %w", err)
	}
	dir := filepath.Join(string(bytes.TrimSpace(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(dir, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read Go's time package: %w", err)
	}
	const reading = "sec, nsec, mono := runtimeNow()"
	if bytes.Count(text, []byte(reading)) != 1 {
		return "", fmt.Errorf("this version of Go reads its clock in another way: change the package testclock: %s does not have %q once", dir, reading)
	}
	text = bytes.Replace(text, []byte(reading), []byte("sec, nsec, mono := steppedNow()"), 1)
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("write an overlay: %w", err)
	}
	at := filepath.Join(cache, "cara-test", fmt.Sprintf("clock-%.8x", sha256.Sum256(append(text, source...))))
	return write(at, map[string][]byte{filepath.Join(dir, "time.go"): text, filepath.Join(dir, "step.go"): source})
}

// write puts the files into a directory, with the overlay that puts them where they belong.
func write(at string, files map[string][]byte) (string, error) {
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	err := os.MkdirAll(at, 0o755)
	for path, text := range files {
		overlay.Replace[path] = filepath.Join(at, filepath.Base(path))
		err = errors.Join(err, replace(overlay.Replace[path], text))
	}
	text, bad := json.Marshal(overlay)
	path := filepath.Join(at, "overlay.json")
	if err = errors.Join(err, bad, replace(path, text)); err != nil {
		return "", fmt.Errorf("write an overlay: %w", err)
	}
	return path, nil
}

// replace writes a file that another process may read or write at the same time.
func replace(path string, text []byte) error {
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	return errors.Join(os.WriteFile(fresh, text, 0o644), os.Rename(fresh, path))
}
