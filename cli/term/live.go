package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// Live is a table on a terminal that is redrawn in place.
type Live struct {
	w             io.Writer
	colour        bool
	columns, rows int // of the terminal
	drawn         int // lines of the table that are currently on the terminal
}

// NewLive returns a table that is redrawn in place, or nil if w is not a terminal that supports escape sequences.
func NewLive(w io.Writer) *Live {
	if !Movable(w) {
		return nil
	}
	l := &Live{w: w, colour: Colourful(w), columns: 80, rows: 24}
	if f, ok := w.(*os.File); ok {
		if columns, rows, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 && rows > 0 {
			l.columns, l.rows = columns, rows
		}
	}
	return l
}

// Draw replaces the previous table. It shows as many rows as fit on the terminal.
func (l *Live) Draw(rows [][]Cell) {
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", l.drawn) // up to the first line of the table, then clear to the end
	}
	lines := l.lines(rows)
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	l.drawn = len(lines)
	fmt.Fprint(l.w, b.String())
}

func (l *Live) lines(rows [][]Cell) []string {
	hidden := 0
	if most := max(l.rows-2, 1); len(rows) > most {
		rows, hidden = rows[:most], len(rows)-most
	}
	t := &Table{Colour: l.colour}
	t.measure(rows)
	lines := make([]string, 0, len(rows)+1)
	for _, row := range rows {
		lines = append(lines, t.format(fit(row, t.widths, l.columns)))
	}
	if hidden > 0 {
		lines = append(lines, fmt.Sprintf("... and %s", Plural(hidden, "more service")))
	}
	return lines
}

// fit truncates the last cell, so that a row is one line of the terminal.
func fit(row []Cell, widths []int, columns int) []Cell {
	used := 0
	for _, w := range widths[:len(row)-1] {
		used += w + columnGap
	}
	last := &row[len(row)-1]
	if room := max(columns-used-1, 1); utf8.RuneCountInString(last.Text) > room {
		last.Text = Short(last.Text, room)
	}
	return row
}
