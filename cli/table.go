package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// Colours of cells. All sequences are equally long, but nothing depends on it: widths are counted without them.
const (
	plain  = ""
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	faint  = "\x1b[90m"
	reset  = "\x1b[0m"
)

// cell is one field of a table.
type cell struct{ text, colour string }

func text(s string) cell { return cell{text: dash(line(s))} }

// table prints aligned columns. Rows that come later keep the widths of those before, and widen them where they must.
type table struct {
	w      io.Writer
	colour bool
	widths []int
}

func newTable(w io.Writer) *table {
	_, no := os.LookupEnv("NO_COLOR") //nolint:forbidigo // https://no-color.org asks for just this
	return &table{w: w, colour: terminal(w) && !no}
}

func (t *table) print(rows ...[]cell) {
	for _, row := range rows {
		for len(t.widths) < len(row) {
			t.widths = append(t.widths, 0)
		}
		for i, c := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, c := range row {
			padding := t.widths[i] - utf8.RuneCountInString(c.text) + 3
			if i == len(row)-1 {
				padding = 0
			}
			if t.colour && c.colour != plain {
				b.WriteString(c.colour + c.text + reset)
			} else {
				b.WriteString(c.text)
			}
			b.WriteString(strings.Repeat(" ", padding))
		}
		fmt.Fprintln(t.w, strings.TrimRight(b.String(), " "))
	}
}

func header(names ...string) []cell {
	row := make([]cell, len(names))
	for i, n := range names {
		row[i] = cell{text: n}
	}
	return row
}
