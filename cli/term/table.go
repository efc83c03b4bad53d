// Package term formats output for a person at a terminal: aligned tables, ages and colours. It also gives the terminal to a
// command that runs on a node.
package term

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Colours of cells. They do not count for the width.
const (
	plain  = ""
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Red    = "\x1b[31m"
	Faint  = "\x1b[90m"
	Reset  = "\x1b[0m"
)

// Cell is one field of a table. Rows are sorted by Order first, then by text. Numbers and times have an Order.
type Cell struct {
	Text, Colour string
	Order        int64
	Clock        bool // the text changes as time passes
}

// Text returns a cell with a text from any user, in one line.
func Text(s string) Cell { return Cell{Text: Dash(Line(s))} }

// Count returns a cell with a number.
func Count(n int32) Cell { return Cell{Text: strconv.Itoa(int(n)), Order: int64(n)} }

// Since returns a cell with the time since t.
func Since(now time.Time, t *timestamppb.Timestamp) Cell {
	return timed(t, Age(now.Sub(t.AsTime())), now.Sub(t.AsTime()))
}

// Ago is Since for a sentence.
func Ago(now time.Time, t *timestamppb.Timestamp) Cell {
	return timed(t, Age(now.Sub(t.AsTime()))+" ago", now.Sub(t.AsTime()))
}

// Until returns a cell with the time until t, or since t if it is in the past.
func Until(now time.Time, t *timestamppb.Timestamp) Cell {
	d := t.AsTime().Sub(now)
	if d > 0 {
		return timed(t, "in "+Age(d), d)
	}
	return timed(t, Age(-d)+" ago", d)
}

// timed returns a cell for a time. Times in the same second are equal; a missing time sorts last.
func timed(t *timestamppb.Timestamp, s string, order time.Duration) Cell {
	if t == nil {
		return Cell{Text: "-", Order: math.MaxInt64}
	}
	return Cell{Text: s, Order: int64(order / time.Second), Clock: true}
}

// Table prints aligned columns. Later rows keep the widths of earlier ones and widen them if necessary.
type Table struct {
	w      io.Writer
	Colour bool
	widths []int
}

// NewTable returns a table that prints to w, with colours if w supports them.
func NewTable(w io.Writer) *Table { return &Table{w: w, Colour: Colourful(w)} }

// Colourful reports whether a stream should have colours: on terminals, unless the user disables them.
func Colourful(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && Movable(w) // https://no-color.org
}

// Movable reports whether a stream is a terminal that supports escape sequences.
func Movable(w io.Writer) bool { return IsTerminal(w) && os.Getenv("TERM") != "dumb" }

// IsTerminal reports whether a stream, for input or output, is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Reserve sets minimum widths for common columns, so that the columns of a watch do not move.
func (t *Table) Reserve(columns []string) {
	usual := map[string]int{
		"NAME": 24, "PHASE": len("Terminating"), "NODE": 12, "CONDITIONS": 20, "SOURCE": 16, "EXPIRES": len("10h ago"), "AGE": 6, "STATE": len("Draining"),
	}
	for _, name := range columns {
		t.widths = append(t.widths, max(len(name), usual[name]))
	}
}

// columnGap is the space between two columns.
const columnGap = 3

// Print prints rows.
func (t *Table) Print(rows ...[]Cell) {
	t.measure(rows)
	for _, row := range rows {
		fmt.Fprintln(t.w, t.format(row))
	}
}

// measure widens the columns to hold the rows.
func (t *Table) measure(rows [][]Cell) {
	for _, row := range rows {
		for len(t.widths) < len(row) {
			t.widths = append(t.widths, 0)
		}
		for i, c := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.Text))
		}
	}
}

// format returns one row without trailing spaces.
func (t *Table) format(row []Cell) string {
	var b strings.Builder
	for i, c := range row {
		if t.Colour && c.Colour != plain {
			b.WriteString(c.Colour + c.Text + Reset)
		} else {
			b.WriteString(c.Text)
		}
		b.WriteString(strings.Repeat(" ", max(t.widths[i]-utf8.RuneCountInString(c.Text), 0)+columnGap))
	}
	return strings.TrimRight(b.String(), " ")
}

// Header returns a row with the names.
func Header(names ...string) []Cell {
	row := make([]Cell, len(names))
	for i, n := range names {
		row[i] = Cell{Text: n}
	}
	return row
}
