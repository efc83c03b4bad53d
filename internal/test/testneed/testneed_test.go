package testneed

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// recorder records how a test would have ended.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper() {}

// The real ones end the test there; this one keeps the first end.
func (r *recorder) Fatalf(format string, args ...any) { r.end("fail: "+format, args) }
func (r *recorder) Skipf(format string, args ...any)  { r.end("skip: "+format, args) }

func (r *recorder) end(format string, args []any) {
	if r.ended == "" {
		r.ended = fmt.Sprintf(format, args...)
	}
}

func TestMissing(t *testing.T) {
	tests := []struct{ e2e, want string }{
		{"1", "fail: no-such-program is not installed: apt-get install none"},
		{"", "skip: no-such-program is not installed: apt-get install none"},
	}
	for _, tt := range tests {
		t.Setenv("E2E", tt.e2e)
		r := &recorder{TB: t}
		Program(r, "no-such-program", "none")
		if r.ended != tt.want {
			t.Errorf("E2E=%q: %q, want %q", tt.e2e, r.ended, tt.want)
		}
	}
}

func TestProgram(t *testing.T) {
	r := &recorder{TB: t}
	if path := Program(r, "go", "golang"); path == "" || r.ended != "" {
		t.Errorf("go is found at %q, and the test ends with %q", path, r.ended)
	}
}

// TestAtOnce runs itself as a test binary with and without the flag -parallel.
func TestAtOnce(t *testing.T) {
	const inside = "CARA_TEST_AT_ONCE"
	if os.Getenv(inside) != "" {
		AtOnce(7)
		fmt.Print("at once: ", flag.Lookup(parallelFlag).Value)
		os.Exit(0)
	}
	for want, args := range map[string][]string{"7": nil, "3": {"-test.parallel=3"}} {
		self := exec.CommandContext(t.Context(), os.Args[0], append(args, "-test.run=^TestAtOnce$")...)
		self.Env = append(os.Environ(), inside+"=1")
		if out, err := self.CombinedOutput(); err != nil || string(out) != "at once: "+want {
			t.Errorf("with the arguments %v: %q (%v), want %s", args, out, err, want)
		}
	}
}
