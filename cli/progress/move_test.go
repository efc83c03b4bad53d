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

func TestMoveProgress(t *testing.T) {
	at := func(phase, node string, move *carav1.Move, reason, message string) *carav1.ProjectEvent {
		return &carav1.ProjectEvent{Type: api.WatchModified, Object: &carav1.Project{
			Metadata: &carav1.ObjectMeta{Name: "shop"},
			Status: &carav1.ProjectStatus{
				Phase: phase, NodeRef: node, Move: move,
				Conditions: []*carav1.Condition{{Type: api.CondMoving, Reason: reason, Message: message}, {Type: api.CondPhase, Status: api.StatusTrue, Reason: "R", Message: "why"}},
			},
		}}
	}
	step := func(step, message string) *carav1.ProjectEvent {
		return at(api.PhaseRunning, "n1", &carav1.Move{Id: "m1", To: "n2", Step: step}, step, message)
	}
	type event struct {
		after time.Duration // since the event before
		event *carav1.ProjectEvent
		line  string
	}
	running := []event{
		{0, step(api.MoveRequested, "waiting"), "project/shop Requested: waiting"},
		{0, &carav1.ProjectEvent{Type: api.WatchBookmark}, ""},
		{time.Second, step(api.MoveCopying, "1 of 3"), "project/shop Copying: 1 of 3"},
		{time.Second, step(api.MoveCopying, "2 of 3"), ""},
		{29 * time.Second, &carav1.ProjectEvent{Type: api.WatchBookmark}, "project/shop Copying: 2 of 3"},
		{30 * time.Second, &carav1.ProjectEvent{Type: api.WatchBookmark}, ""},
		{9 * time.Second, step(api.MoveCopying, "3 of 3"), "project/shop Copying: 3 of 3"},
		{time.Second, step(api.MoveSwitching, "stopped\x1b[2J"), "project/shop Switching: stopped"},
	}
	for _, test := range []struct {
		name string
		last event
		code int // -1: it goes on
		want string
	}{
		{"not started yet", event{0, at(api.PhaseScheduled, "n2", nil, api.ReasonMoved, "moved"), "project/shop Scheduled: why"}, -1, ""},
		{"runs", event{0, at(api.PhaseRunning, "n2", nil, api.ReasonMoved, "moved"), ""}, 0, ""},
		{"failed on the new node", event{0, at(api.PhaseFailed, "n2", nil, api.ReasonMoved, "moved"), ""}, term.ExitFailed, `project "shop" moved to node n2 and failed there: R: why`},
		{"cancelled", event{0, at(api.PhaseRunning, "n1", nil, api.ReasonMoveCancelled, "cancelled by me"), ""}, term.ExitFailed, `project "shop" is not moved: cancelled by me`},
		{"another move", event{0, at(api.PhaseRunning, "n1", &carav1.Move{Id: "m2", To: "n3"}, "", ""), ""}, term.ExitFailed, `project "shop" has another move, to node n3`},
		{"deleted", event{0, &carav1.ProjectEvent{Type: api.WatchDeleted}, ""}, 1, `project "shop" was deleted meanwhile`},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, now := progress.NewMove("shop", "n2", "m1"), time.Unix(0, 0)
			for _, e := range append(append([]event{}, running...), test.last) {
				now = now.Add(e.after)
				if got := m.Take(e.event, now); got != e.line {
					t.Errorf("it says %q, want %q", got, e.line)
				}
			}
			var exit term.Exit
			errors.As(m.Failed, &exit)
			if m.Ended != (test.code >= 0) || exit.Code != max(0, test.code) || !strings.HasPrefix(exit.Message, test.want) {
				t.Errorf("ended: %t with %d %q, want %d %q", m.Ended, exit.Code, exit.Message, test.code, test.want)
			}
		})
	}
	gone := progress.NewMove("shop", "n2", "m1")
	if gone.Take(&carav1.ProjectEvent{Type: api.WatchBookmark}, time.Unix(0, 0)); !gone.Ended || gone.Failed == nil {
		t.Error("a project that is not there still moves")
	}
}
