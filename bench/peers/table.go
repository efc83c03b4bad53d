package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Columns of the tables.
const (
	inSequence = "engine, one by one"
	inOrder    = "engine, starts in order"
	inParallel = "engine, in parallel"
	byCompose  = "Compose"
	bySwarm    = "Swarm"
	byCara     = "Cara"
	byCaraFan  = "Cara, dependsOn"
	byCaraTemp = "Cara, Ephemeral volume"
	byCaraData = "Cara, Managed volume"
	direct     = "the container itself"
	byProxy    = "httputil.ReverseProxy"
)

// page is where tables go, each as soon as its contest is over: what was measured is not lost with what comes after.
type page struct {
	outs []io.Writer
}

func (p *page) print(t *table) error {
	if len(t.rows) == 0 {
		return nil
	}
	for _, out := range p.outs {
		if _, err := io.WriteString(out, t.String()); err != nil {
			return fmt.Errorf("print a table: %w", err)
		}
	}
	return nil
}

// table has the figures of one contest.
type table struct {
	rows    []string
	figures map[string]map[string]string // by row and column
}

func newTable() *table { return &table{figures: map[string]map[string]string{}} }

// set enters a figure.
func (t *table) set(row, column, figure string) {
	if t.figures[row] == nil {
		t.figures[row] = map[string]string{}
		t.rows = append(t.rows, row)
	}
	t.figures[row][column] = figure
}

// times enters the median of a series, with its lowest and highest.
func (t *table) times(row, column string, took []time.Duration) {
	middle, lowest, highest := spread(took)
	t.set(row, column, fmt.Sprintf("%.2f s (%.2f-%.2f)", middle.Seconds(), lowest.Seconds(), highest.Seconds()))
}

// spread is the median of a series, its lowest and its highest.
func spread[T time.Duration | float64](series []T) (middle, lowest, highest T) {
	s := slices.Sorted(slices.Values(series))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2, s[0], s[len(s)-1]
}

// String is the table as Markdown, without the columns that nobody has a figure for, and as wide as its text.
func (t *table) String() string {
	columns := slices.DeleteFunc([]string{inSequence, inOrder, inParallel, byCompose, bySwarm, direct, byProxy, byCara, byCaraFan, byCaraTemp, byCaraData}, func(c string) bool {
		return !slices.ContainsFunc(t.rows, func(row string) bool { return t.figures[row][c] != "" })
	})
	lines := [][]string{append([]string{""}, columns...)}
	for _, row := range t.rows {
		line := []string{row}
		for _, c := range columns {
			figure := t.figures[row][c]
			if figure == "" {
				figure = "-"
			}
			line = append(line, figure)
		}
		lines = append(lines, line)
	}
	widths := make([]int, len(columns)+1)
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, cell := range line {
			fmt.Fprintf(&b, "| %-*s ", widths[i], cell)
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	b.WriteString("\n")
	return b.String()
}

// series runs something several times and tells of each run, with what else the machine was doing.
func series(name string, runs int, once func(run int) (time.Duration, error)) ([]time.Duration, error) {
	var took []time.Duration
	for i := range runs {
		d, err := once(i)
		if err != nil {
			return took, fmt.Errorf("%s, run %d: %w", name, i+1, err)
		}
		took = append(took, d)
		fmt.Fprintf(os.Stderr, "%-55s %6.3f s   load %s\n", name, d.Seconds(), load())
	}
	return took, nil
}

// load is the machine's load over the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
