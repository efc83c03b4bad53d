package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestRestoreProgress(t *testing.T) {
	at := func(phase string, move *carav1.Move, reason, message string) *carav1.Project {
		return &carav1.Project{
			Metadata: &carav1.ObjectMeta{Name: "shop"},
			Status: &carav1.ProjectStatus{
				Phase: phase, NodeRef: "n1", Move: move,
				Conditions: []*carav1.Condition{{Type: api.CondRestoring, Reason: reason, Message: message}, {Type: api.CondPhase, Status: api.StatusTrue, Reason: "R", Message: "why"}},
			},
		}
	}
	asked := at(api.PhaseRunning, &carav1.Move{Id: "m1", Step: api.MoveRestoring, Restore: &carav1.Restore{}}, api.ReasonRestoring, "1 of 2")
	for _, test := range []struct {
		name, as string
		last     *carav1.Project
		line     string
		code     int // -1: it goes on
		want     string
	}{
		{"in progress", "", at(api.PhaseRunning, &carav1.Move{Id: "m1", Step: api.MoveRestoring}, api.ReasonRestoring, "2 of 2"), "project/shop Restoring: 2 of 2", -1, ""},
		{"not started yet", "", at(api.PhaseScheduled, nil, api.ReasonRestored, "restored"), "project/shop Scheduled: why", -1, ""},
		{"runs", "", at(api.PhaseRunning, nil, api.ReasonRestored, "restored"), "", 0, ""},
		{"fails on the restored data", "", at(api.PhaseFailed, nil, api.ReasonRestored, "restored"), "", term.ExitFailed, `the data of project "shop" is restored, and the project failed: R: why`},
		{"for another project", "old", at(api.PhaseFailed, nil, api.ReasonRestored, "restored"), "", 0, ""},
		{"failed", "", at(api.PhaseRunning, nil, api.ReasonRestoreFailed, "wrong password\x1b[2J"), "", term.ExitFailed, `project "shop" is not restored: wrong password`},
		{"cancelled", "old", at(api.PhaseRunning, nil, api.ReasonRestoreCancelled, "cancelled by me"), "", term.ExitFailed, `project "shop" is not restored: cancelled by me`},
		{"another one", "", at(api.PhaseRunning, &carav1.Move{Id: "m2"}, "", ""), "", term.ExitFailed, `project "shop" is moved or restored again`},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, now := newRestoreProgress("shop", test.as, asked), time.Unix(0, 0)
			if got := m.take(&carav1.ProjectEvent{Object: asked}, now); got != "project/shop Restoring: 1 of 2" {
				t.Errorf("it says %q", got)
			}
			if got := m.take(&carav1.ProjectEvent{Object: test.last}, now.Add(betweenLines)); got != test.line {
				t.Errorf("it says %q, want %q", got, test.line)
			}
			var exit term.Exit
			errors.As(m.failed, &exit)
			if m.ended != (test.code >= 0) || exit.Code != max(0, test.code) || !strings.HasPrefix(exit.Message, test.want) || strings.Contains(exit.Message, "\x1b") {
				t.Errorf("ended: %t with %d %q, want %d %q", m.ended, exit.Code, exit.Message, test.code, test.want)
			}
		})
	}
}

// TestRestoreIsShownUntilItsEnd: the command ends when the project runs on the restored data.
func TestRestoreIsShownUntilItsEnd(t *testing.T) {
	h := newTestServer(t)
	ctx := t.Context()
	must(t, h.node(ctx, "n1"))
	must(t, h.tooled(ctx, "n1"))
	must(t, h.holds(ctx, "n1"))
	for _, r := range []result{
		h.ctl(ctx, "", "create", "secret", "s", "--type", "backup", "--from-literal", "repository=/srv/b", "--from-literal", "password=abcdefghijk"),
		h.ctl(ctx, `{apiVersion: caravanserai/v1, kind: Project, metadata: {name: shop}, spec: {services: [{name: web, image: nginx}], volumes: [{name: db, type: Managed}], backup: {secretRef: s}}}`,
			"apply", "-f", "-"),
	} {
		if r.code != 0 {
			t.Fatal(r.err)
		}
	}
	must(t, h.schedule(ctx, "shop", "Bind", "n1", ""))
	must(t, h.holds(ctx, "n1", "shop.db"))
	must(t, h.report(ctx, "shop", "Running", "Running", "Ready", ""))
	out, _ := h.start(t, "restore", "shop", "--wait")
	out.until(t, "project/shop Restoring: restoring the newest backup of volume db on node n1\n")
	must(t, h.fills(ctx, "n1", api.VolumeRestored, "0123456789abcdef", ""))
	out.until(t, "project/shop Scheduled: ")
	must(t, h.report(ctx, "shop", "Running", "Running", "Ready", ""))
	out.until(t, "project/shop runs on its restored data\n")
}
