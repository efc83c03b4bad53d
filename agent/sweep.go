package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// sweep removes objects with our labels that belong to no assignment. It does so only while the server is connected and has
// named all our projects, and only for projects that have been orphans for the grace. It returns when to look again (0 for
// never), and a message for an event (empty for none).
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

// sweepShare and sweepFew limit what one sweep removes: this percentage of the projects on the node, but at least a few.
const (
	sweepShare = 30
	sweepFew   = 3
)

// dueOrphans returns the orphans to remove now, those known longest first, and when to check the others. If there are more
// than one sweep may remove, the rest wait for another whole grace. During that time an operator who notices the removals
// can stop the agent, and a lost connection restarts the wait.
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

// sweptText describes what was removed. A fingerprint has a line for each container, network and volume.
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
