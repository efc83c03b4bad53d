package cli

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
)

// TestMoveIsShownUntilItsEnd, over a restart of the command.
func TestMoveIsShownUntilItsEnd(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	must(t, h.node(t.Context(), "n2"))
	h.apply(t, "shop", "nginx:1")
	must(t, h.schedule(t.Context(), "shop", "Bind", "n1", ""))
	must(t, h.report(t.Context(), "shop", "Running", "Running", "Ready", ""))
	out, stop := h.start(t, "move", "shop", "--to", "n2", "--wait")
	out.until(t, "project/shop Requested: move from node n1 to node n2 requested by user/admin; waiting for the scheduler\n")
	if code := stop(); code != exitInterrupted || !strings.Contains(out.String(), "error: interrupted: project shop still moves to node n2 (Requested: ") {
		t.Errorf("ended with %d: %s", code, out)
	}
	again, _ := h.start(t, "move", "shop", "--to", "node/n2", "--wait")
	again.until(t, "project/shop Requested")
	must(t, h.schedule(t.Context(), "shop", api.ScheduleAcceptMove, "n2", ""))
	again.until(t, "project/shop Scheduled: ")
	must(t, h.report(t.Context(), "shop", "Running", "Running", "Ready", ""))
	again.until(t, "project/shop runs on n2\n")
}
