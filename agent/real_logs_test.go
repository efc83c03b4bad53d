package agent_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestRealFollowOverRotation follows a container that writes as fast as it can, more than the engine keeps.
// Each line arrives once, or is in a gap that is reported at its position.
func TestRealFollowOverRotation(t *testing.T) {
	t.Parallel()
	lines := 400_000 // of about 90 bytes in the log, which holds 30 MB
	if soaking() {
		lines = 2_000_000
	}
	r := newReal(t)
	r.run(t)
	project := name(t)
	script := fmt.Sprintf("while [ ! -e /go ]; do sleep 0.1; done; seq 1 %d; sleep 1; echo end; exec sleep 1000", lines)
	r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "a", Image: testimage.Busybox, Command: []string{"sh", "-c", script}, StopGracePeriod: "0s",
	}}})
	p := r.wait(t, project, phase(api.PhaseRunning))
	r.open("follow", &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: project, Follow: true}}})
	docker := r.docker(t)
	start, err := docker.ContainerExecCreate(t.Context(), p.GetStatus().GetServices()[0].GetContainerId(), container.ExecOptions{Cmd: []string{"touch", "/go"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := docker.ContainerExecStart(t.Context(), start.ID, container.ExecStartOptions{}); err != nil {
		t.Fatal(err)
	}
	deadline, over := time.After(3*time.Minute), false
	var all []*carav1.AttachRequest
	for !over {
		select {
		case <-deadline:
			t.Fatalf("after 3 minutes there are %d lines", len(all))
		case <-time.After(50 * time.Millisecond):
		}
		r.mu.Lock()
		all = r.lines["follow"]
		r.mu.Unlock()
		over = len(all) > 0 && all[len(all)-1].GetLog().GetLine() == "end"
	}
	next, got, lost, gaps, inGaps := 1, 0, 0, 0, 0
	for _, m := range all {
		l := m.GetLog()
		lost += int(l.GetLost())
		n, err := strconv.Atoi(l.GetLine())
		if err != nil {
			continue
		}
		switch {
		case n < next:
			t.Fatalf("line %d came twice", n)
		case n > next && l.GetLost() == 0:
			t.Fatalf("lines %d to %d are missing, and nothing was told", next, n-1)
		case n > next:
			gaps++
			inGaps += n - next
		}
		next, got = n+1, got+1
	}
	if next != lines+1 {
		t.Errorf("the last line that came is %d of %d", next-1, lines)
	}
	t.Logf("%d lines: %d came, %d are missing in %d gaps that were told as %d", lines, got, inGaps, gaps, lost)
	r.terminate(project)
	r.wait(t, project, gone)
}
