package term

import (
	"bytes"
	"strings"
	"testing"
)

func TestLiveDrawsInPlace(t *testing.T) {
	var out bytes.Buffer
	l := &Live{w: &out, columns: 40, rows: 24}
	l.Draw([][]Cell{
		{Text("shop/web"), Text("Pulling"), Text("pulling web:1: 3 of 9 MB\x1b[2J, and a long tail of words")},
		{Text("shop/db"), Text("Healthy"), {}},
	})
	want := "shop/web   Pulling   pulling web:1: 3 …\nshop/db    Healthy\n"
	if got := out.String(); got != want {
		t.Errorf("drew\n%q, want\n%q", got, want)
	}
	out.Reset()
	l.Draw([][]Cell{{Text("shop/db"), Text("Healthy"), {}}})
	if got, want := out.String(), "\x1b[2A\x1b[Jshop/db   Healthy\n"; got != want {
		t.Errorf("drew\n%q, want\n%q", got, want)
	}
}

func TestLiveFitsTheTerminal(t *testing.T) {
	l := &Live{columns: 80, rows: 4}
	var rows [][]Cell
	for _, name := range []string{"a", "b", "c", "d"} {
		rows = append(rows, []Cell{Text(name), Text("Waiting")})
	}
	lines := l.lines(rows)
	if len(lines) != 3 || lines[2] != "... and 2 more services" {
		t.Errorf("got %s", strings.Join(lines, "\n"))
	}
}

func TestNothingElseIsDrawnInPlace(t *testing.T) {
	if l := NewLive(&bytes.Buffer{}); l != nil {
		t.Errorf("got %+v for what is not a terminal", l)
	}
}
