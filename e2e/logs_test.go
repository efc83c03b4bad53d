package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestLogsOverRestarts: who follows gets each line once, over a restart of a container and over its replacement, and is let
// go when the project is gone.
func TestLogsOverRestarts(t *testing.T) {
	w := oneNode(t)
	testdocker.Images(t, w.engines[0], testimage.Busybox)
	name := w.name("chatty")
	run := func(word string) string {
		return project(name, `
services:
- name: talk
  image: `+testimage.Busybox+`
  command: [sh, -c, "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo `+word+` $i; done; sleep 1h"]
  init: true
  stopGracePeriod: 1s`)
	}
	w.apply(run("one"))
	w.running(name)
	follow := w.begin("logs", "-f", name)
	w.prints(follow, "one 200")
	if r := w.ctl("", "logs", "--previous", name); r.Code != 1 || !strings.Contains(r.Stderr, "there is no previous run") {
		t.Errorf("the previous run of one that was never restarted: %+v", r)
	}
	count := func(words ...string) (lines []string) {
		for i := range 200 {
			for _, word := range words {
				lines = append(lines, fmt.Sprintf("%s %d", word, i+1))
			}
		}
		slices.Sort(lines)
		return lines
	}
	printed := func() []string {
		lines := strings.Split(follow.Tail(5000), "\n")
		// On a busy machine the agent may answer late. caractrl says so, and goes on without losing or doubling a line.
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasSuffix(l, "; the logs go on when it is back)") })
		slices.Sort(lines)
		return lines
	}

	w.stopBehindBack(w.engines[0], w.containers(w.engines[0], name)["talk"])
	w.until(name, "was restarted", func(p *carav1.Project) bool {
		s := p.GetStatus().GetServices()
		return len(s) == 1 && s[0].GetRestarts() == 1 && s[0].GetState() == "Running"
	})
	previous := strings.Split(strings.TrimSpace(w.ctl("", "logs", "--previous", name).Stdout), "\n")
	slices.Sort(previous)
	if !slices.Equal(previous, count("one")) {
		t.Errorf("the previous run has %d lines:\n%s", len(previous), strings.Join(previous, "\n"))
	}
	if r := w.ctl("", "logs", "-p", "--tail", "1", name); r.Stdout != "one 200\n" {
		t.Errorf("the last line of the previous run: %+v", r)
	}
	if r := w.ctl("", "logs", "-p", "-f", name); r.Code != 1 || !strings.Contains(r.Stderr, "do not go together") {
		t.Errorf("the previous run cannot be followed: %+v", r)
	}

	w.apply(run("two"))
	w.prints(follow, "two 200")
	w.running(name)
	whole := func() {
		t.Helper()
		got, want := printed(), count("one", "one", "two")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d lines, want %d (-want +got):\n%s", len(got), len(want), diff)
		}
	}
	whole()
	if r := w.ctl("", "delete", "project", name, "--wait"); r.Code != 0 {
		t.Errorf("delete: %+v", r)
	}
	if code := follow.ExitCode(); code != 0 {
		t.Errorf("exit code %d when the project is gone:\n%s", code, follow.Tail(3))
	}
	whole()
}

// TestLogsOfFailed: what failed has its logs, and who followed it is let go.
func TestLogsOfFailed(t *testing.T) {
	w := oneNode(t)
	name := w.name("broken")
	w.apply(project(name, `
services:
- name: job
  image: `+testimage.Job+`
  args: [-lines, "3", -exit, "1"]
  restartPolicy: Never`))
	w.until(name, "is Failed", func(p *carav1.Project) bool { return p.GetStatus().GetPhase() == api.PhaseFailed })
	for _, args := range [][]string{{"logs", name}, {"logs", "-f", name}} {
		if r := w.ctl("", args...); r.Code != 0 || strings.Count(r.Stdout, "\n") != 4 || !strings.Contains(r.Stdout, "job v1: exit 1") {
			t.Errorf("%v: %+v", args, r)
		}
	}
}
