package testclock

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// program tells its clock and how long it runs, in seconds, for each byte that it reads. It imports little, so it is built fast.
const program = `package main

import ("syscall"; "time")

func main() {
	start := time.Now()
	for b := make([]byte, 1); ; {
		if n, err := syscall.Read(0, b); n < 1 || err != nil { return }
		print(time.Now().Unix(), " ", int64(time.Since(start)/time.Second), "\n")
	}
}
`

// TestStep: the clock of a program that runs goes forward and back, and its monotonic clock does not.
func TestStep(t *testing.T) {
	testneed.NotShort(t)
	dir := t.TempDir()
	overlay, err := Overlay(t.Context())
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", filepath.Join(dir, "clock"), filepath.Join(dir, "main.go"))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c, err := New(filepath.Join(dir, "step"))
	must(t, err)
	run := exec.CommandContext(t.Context(), filepath.Join(dir, "clock"))
	run.Env = append(os.Environ(), c.Env())
	in, err := run.StdinPipe()
	must(t, err)
	out, err := run.StderrPipe()
	must(t, err)
	must(t, run.Start())
	lines := bufio.NewReader(out)
	for _, step := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		must(t, c.Step(step))
		before := time.Now().Add(step).Unix()
		_, err := io.WriteString(in, ".")
		must(t, err)
		line, err := lines.ReadString('\n')
		must(t, err)
		after := time.Now().Add(step).Unix()
		var said, ran int64
		if _, err := fmt.Sscan(line, &said, &ran); err != nil || said < before || said > after || ran < 0 || ran > 1800 {
			t.Errorf("after a step of %s the program says %q (%v), want %d to %d", step, line, err, before, after)
		}
	}
	must(t, in.Close())
	must(t, run.Wait())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
