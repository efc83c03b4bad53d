package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/step"
)

// goBack takes the server's word on projects that it names with an epoch below the one in force here. Only one that was
// restored from a backup says such a thing for long: it says so in its first list on a new stream, and goes on saying
// so for the whole grace. It returns when to look again, 0 for no need, and what to tell, empty for nothing.
func (a *Agent) goBack(now time.Time) (time.Duration, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var back []string
	for _, project := range slices.Sorted(maps.Keys(a.tasks)) {
		t := a.tasks[project]
		if t.older == nil || !a.synced {
			continue
		}
		if left := a.cfg.OrphanGrace - now.Sub(a.syncedAt); left > 0 {
			return left, ""
		}
		want := step.NewWant(a.cfg.node(), t.older, true)
		a.log.Warn("the server has gone back to an older assignment", "project", project, "epoch", want.Epoch, "in_force", t.want.Epoch)
		back = append(back, fmt.Sprintf("%s from epoch %d to %d", project, t.want.Epoch, want.Epoch))
		t.want, t.project, t.held, t.older = want, t.older.GetProject(), false, nil
		a.queue.Add(project)
	}
	if len(back) == 0 {
		return 0, ""
	}
	return 0, "the server was restored from an older state; its word is taken on " + strings.Join(back, ", ")
}
