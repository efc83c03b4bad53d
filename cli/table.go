package cli

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

// Colours of cells. Widths are counted without them.
const (
	plain  = ""
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	faint  = "\x1b[90m"
	reset  = "\x1b[0m"
)

// cell is one field of a table. Rows are sorted by order first, then by text: numbers and times have an order.
type cell struct {
	text, colour string
	order        int64
	clock        bool // the text changes with the time alone
}

func text(s string) cell { return cell{text: dash(line(s))} }

func count(n int32) cell { return cell{text: strconv.Itoa(int(n)), order: int64(n)} }

// since is how long ago a time was.
func since(now time.Time, t *timestamppb.Timestamp) cell {
	return timed(t, age(now.Sub(t.AsTime())), now.Sub(t.AsTime()))
}

// ago says the same in a sentence.
func ago(now time.Time, t *timestamppb.Timestamp) cell {
	return timed(t, age(now.Sub(t.AsTime()))+" ago", now.Sub(t.AsTime()))
}

// until is how far ahead a time is, or how long ago.
func until(now time.Time, t *timestamppb.Timestamp) cell {
	d := t.AsTime().Sub(now)
	if d > 0 {
		return timed(t, "in "+age(d), d)
	}
	return timed(t, age(-d)+" ago", d)
}

// timed is a cell about a time. What is equal to the second keeps its order; without a time it comes last.
func timed(t *timestamppb.Timestamp, s string, order time.Duration) cell {
	if t == nil {
		return cell{text: "-", order: math.MaxInt64}
	}
	return cell{text: s, order: int64(order / time.Second), clock: true}
}

// table prints aligned columns. Rows that come later keep the widths of those before, and widen them where they must.
type table struct {
	w      io.Writer
	colour bool
	widths []int
}

func newTable(w io.Writer) *table { return &table{w: w, colour: colourful(w)} }

// colourful tells whether colour may be used on a stream: on terminals, unless the user wants none.
func colourful(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && movable(w) // https://no-color.org
}

// movable reports whether a stream is a terminal that obeys escape sequences.
func movable(w io.Writer) bool { return isTerminal(w) && os.Getenv("TERM") != "dumb" }

// isTerminal tells whether somebody looks at a stream.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// reserve makes room for the usual values of each column, so that the columns of a watch stay where they are.
func (t *table) reserve(columns []string) {
	usual := map[string]int{
		"NAME": 24, "PHASE": len("Terminating"), "NODE": 12, "CONDITIONS": 20, "SOURCE": 16, "EXPIRES": len("10h ago"), "AGE": 6, "STATE": len("Draining"),
	}
	for _, name := range columns {
		t.widths = append(t.widths, max(len(name), usual[name]))
	}
}

// columnGap is the space between two columns.
const columnGap = 3

func (t *table) print(rows ...[]cell) {
	t.measure(rows)
	for _, row := range rows {
		fmt.Fprintln(t.w, t.format(row))
	}
}

// measure widens the columns to hold the rows.
func (t *table) measure(rows [][]cell) {
	for _, row := range rows {
		for len(t.widths) < len(row) {
			t.widths = append(t.widths, 0)
		}
		for i, c := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
		}
	}
}

func (t *table) format(row []cell) string {
	var b strings.Builder
	for i, c := range row {
		if t.colour && c.colour != plain {
			b.WriteString(c.colour + c.text + reset)
		} else {
			b.WriteString(c.text)
		}
		b.WriteString(strings.Repeat(" ", max(t.widths[i]-utf8.RuneCountInString(c.text), 0)+columnGap))
	}
	return strings.TrimRight(b.String(), " ")
}

func header(names ...string) []cell {
	row := make([]cell, len(names))
	for i, n := range names {
		row[i] = cell{text: n}
	}
	return row
}
