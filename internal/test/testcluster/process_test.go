package testcluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPause: when Pause returns, each thread of the process is stopped, also after an earlier pause. One that has exited is no error.
func TestPause(t *testing.T) {
	p, err := Start(filepath.Join(t.TempDir(), "log"), os.Environ(), "sh", "-c", "while :; do :; done")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	state := func() string {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		return rest[:1]
	}
	for range 50 {
		if err := p.Pause(); err != nil || state() != "T" {
			t.Fatalf("paused with %v, in state %s", err, state())
		}
		if err := p.Pause(); err != nil {
			t.Fatal("paused twice: ", err)
		}
		if err := p.Resume(); err != nil || state() == "T" {
			t.Fatalf("resumed with %v, in state %s", err, state())
		}
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); err != nil {
		t.Error("paused after its end: ", err)
	}
}
