package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Columns of the table.
const (
	inSequence = "engine, one by one"
	inOrder    = "engine, starts in order"
	inParallel = "engine, in parallel"
	byCompose  = "Compose"
	bySwarm    = "Swarm"
	byCara     = "Cara"
)

// table collects figures and prints them once, aligned.
type table struct {
	out     io.Writer
	rows    []string
	figures map[string]map[string]string // by row and column
}

func newTable(out io.Writer) *table {
	return &table{out: out, figures: map[string]map[string]string{}}
}

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
	slices.Sort(took)
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }
	median := (took[(len(took)-1)/2] + took[len(took)/2]) / 2
	t.set(row, column, fmt.Sprintf("%s s (%s-%s)", seconds(median), seconds(took[0]), seconds(took[len(took)-1])))
}

func (t *table) print() {
	columns := []string{inSequence, inOrder, inParallel, byCompose, bySwarm, byCara}
	columns = slices.DeleteFunc(columns, func(c string) bool {
		return !slices.ContainsFunc(t.rows, func(row string) bool { return t.figures[row][c] != "" })
	})
	w := tabwriter.NewWriter(t.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\t"+strings.Join(columns, "\t"))
	for _, row := range t.rows {
		fmt.Fprint(w, row)
		for _, c := range columns {
			figure := t.figures[row][c]
			if figure == "" {
				figure = "-"
			}
			fmt.Fprint(w, "\t"+figure)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "print the table:", err)
	}
}

// series runs something several times and tells of each run, with what else the machine was doing.
func series(name string, runs int, once func(run int) (time.Duration, error)) ([]time.Duration, error) {
	var took []time.Duration
	for i := range runs {
		d, err := once(i)
		if err != nil {
			return nil, fmt.Errorf("%s, run %d: %w", name, i+1, err)
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
