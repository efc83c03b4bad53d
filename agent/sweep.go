package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// sweep takes away what carries our labels and belongs to no assignment: only while the server is connected and has
// named all that is ours, and only what has been so for the grace. It returns when to look again, 0 for no need, and
// what to tell of it, empty for nothing.
func (w *watcher) sweep(seen map[string]string, orphans map[string]time.Time, now time.Time) (time.Duration, string) {
	unowned, synced := w.assignments.unowned(seen)
	maps.DeleteFunc(orphans, func(project string, _ time.Time) bool { return !synced || !unowned[project] })
	if !synced {
		return 0, ""
	}
	for project := range unowned {
		if _, known := orphans[project]; !known {
			orphans[project] = now
		}
	}
	due, wait := dueOrphans(orphans, len(seen), w.cfg.OrphanGrace, now)
	for _, project := range due {
		w.log.Warn("sweeping an orphan", "project", project)
		w.assignments.unassign(project, "", 0)
		w.swept.Add(1)
		delete(orphans, project)
	}
	return wait, sweptText(due, len(orphans), seen)
}

// sweepShare and sweepFew bound what one sweep takes away: this share of the projects on the node, in percent, and
// never less than a few.
const (
	sweepShare = 30
	sweepFew   = 3
)

// dueOrphans decides which orphans go now, the longest known first, and when to look again at the others. The brake:
// where there are more than one sweep may take, the rest wait for another whole grace, in which somebody who sees what
// happens can stop the agent, and in which a connection that is lost begins the wait anew.
func dueOrphans(orphans map[string]time.Time, projects int, grace time.Duration, now time.Time) (due []string, wait time.Duration) {
	for _, project := range slices.Sorted(maps.Keys(orphans)) {
		if now.Sub(orphans[project]) >= grace {
			due = append(due, project)
		}
	}
	slices.SortStableFunc(due, func(x, y string) int { return orphans[x].Compare(orphans[y]) })
	limit := max(sweepFew, projects*sweepShare/100)
	if len(due) > limit {
		for _, project := range due[limit:] {
			orphans[project] = now
		}
		due = due[:limit]
	}
	for project, since := range orphans {
		if left := grace - now.Sub(since); left > 0 && !slices.Contains(due, project) {
			wait = max(wait, left)
		}
	}
	return due, wait
}

// sweptText names what was swept. A fingerprint has a line for each container, network and volume.
func sweptText(swept []string, more int, seen map[string]string) string {
	if len(swept) == 0 {
		return ""
	}
	things := 0
	for _, project := range swept {
		things += strings.Count(seen[project], "\n") + 1
	}
	text := fmt.Sprintf("removes what nobody owns: %d containers, networks and volumes of %d projects (%s)",
		things, len(swept), strings.Join(swept, ", "))
	if more > 0 {
		text += fmt.Sprintf("; %d more wait", more)
	}
	return text
}
