package testcluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dump returns details for the analysis of a failure: the output of caractrl, then the programs' last log lines.
func (c *Cluster) Dump(ctx context.Context) string {
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "nodes"},
		{"get", "sources", "-o", "wide"},
		{"get", "projects", "-o", "wide"},
		{"get", "events"},
	} {
		r, err := c.Ctl(ctx, "", args...)
		fmt.Fprintf(&b, "--- caractrl %s\n%s%s", strings.Join(args, " "), tail(r.Stdout, 100), r.Stderr)
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	if c.Server != nil {
		fmt.Fprintf(&b, "--- cara-server\n%s\n", c.Server.Tail(60))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Agents)) {
		fmt.Fprintf(&b, "--- cara-agent %s\n%s\n", name, c.Agents[name].Tail(60))
	}
	return b.String()
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}
