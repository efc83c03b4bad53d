package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDueOrphans(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ago := func(ages ...time.Duration) map[string]time.Time {
		out := map[string]time.Time{}
		for i, age := range ages {
			out[fmt.Sprintf("p%d", i)] = now.Add(-age)
		}
		return out
	}
	const grace = 30 * time.Second
	for name, c := range map[string]struct {
		orphans  map[string]time.Time
		projects int
		want     string
		wait     time.Duration
	}{
		"none":                          {orphans: ago(), projects: 9},
		"one that is new":               {orphans: ago(0), projects: 9, wait: grace},
		"one whose time has come":       {orphans: ago(grace), projects: 9, want: "p0"},
		"one of two":                    {orphans: ago(grace, 10*time.Second), projects: 9, want: "p0", wait: 20 * time.Second},
		"a few, on a small node":        {orphans: ago(grace, grace, grace), projects: 3, want: "p0 p1 p2"},
		"more than a few: brake":        {orphans: ago(grace, grace, grace, grace), projects: 4, want: "p0 p1 p2", wait: grace},
		"the longest known go first":    {orphans: ago(grace, grace, grace, 2*grace), projects: 4, want: "p3 p0 p1", wait: grace},
		"a third of many is not braked": {orphans: ago(grace, grace, grace, grace, grace), projects: 17, want: "p0 p1 p2 p3 p4"},
	} {
		t.Run(name, func(t *testing.T) {
			due, wait := dueOrphans(c.orphans, c.projects, grace, now)
			if got := strings.Join(due, " "); got != c.want || wait != c.wait {
				t.Errorf("due %q, wait %s; want %q, %s", got, wait, c.want, c.wait)
			}
		})
	}
}

func TestSweptText(t *testing.T) {
	seen := map[string]string{"a": "c1\nn1", "b": "n2"}
	if got, want := sweptText([]string{"a", "b"}, 4, seen), "removes what nobody owns: 3 containers, networks and volumes of 2 projects (a, b); 4 more wait"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := sweptText(nil, 4, seen); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}
