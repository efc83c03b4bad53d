package progress_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/progress"
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
			m, now := progress.NewRestore("shop", test.as, asked), time.Unix(0, 0)
			if got := m.Take(&carav1.ProjectEvent{Object: asked}, now); got != "project/shop Restoring: 1 of 2" {
				t.Errorf("it says %q", got)
			}
			if got := m.Take(&carav1.ProjectEvent{Object: test.last}, now.Add(progress.BetweenLines)); got != test.line {
				t.Errorf("it says %q, want %q", got, test.line)
			}
			var exit term.Exit
			errors.As(m.Failed, &exit)
			if m.Ended != (test.code >= 0) || exit.Code != max(0, test.code) || !strings.HasPrefix(exit.Message, test.want) || strings.Contains(exit.Message, "\x1b") {
				t.Errorf("ended: %t with %d %q, want %d %q", m.Ended, exit.Code, exit.Message, test.code, test.want)
			}
		})
	}
}
