package term

import (
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestAge(t *testing.T) {
	tests := map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 150 * time.Second: "2m30s", 10 * time.Minute: "10m",
		179 * time.Minute: "179m", 3 * time.Hour: "3h", 200 * time.Minute: "3h20m", 8 * time.Hour: "8h", 47 * time.Hour: "47h",
		48 * time.Hour: "2d", 49 * time.Hour: "2d1h", 8 * 24 * time.Hour: "8d", 1000 * 24 * time.Hour: "1000d",
	}
	for d, want := range tests {
		if got := Age(d); got != want {
			t.Errorf("age of %s is %q, want %q", d, got, want)
		}
	}
}

func TestUntil(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for want, at := range map[string]*timestamppb.Timestamp{
		"-": nil, "in 24h": timestamppb.New(now.Add(24 * time.Hour)), "5m ago": timestamppb.New(now.Add(-5 * time.Minute)),
	} {
		if got := Until(now, at).Text; got != want {
			t.Errorf("until %v is %q, want %q", at, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for _, tt := range []struct{ give, want string }{{"abc", "abc"}, {"abcd", "ab…"}, {"äöüß", "äö…"}, {"", ""}} {
		if got := Short(tt.give, 3); got != tt.want {
			t.Errorf("short(%q) is %q, want %q", tt.give, got, tt.want)
		}
	}
}

func TestTableKeepsItsColumns(t *testing.T) {
	var b strings.Builder
	tab := NewTable(&b)
	tab.Print(Header("NAME", "PHASE", "X"), []Cell{{Text: "wéb"}, {Text: "Running", Colour: Green}, {Text: ""}})
	tab.Print([]Cell{{Text: "a-long-name"}, {Text: "P"}, {Text: "x"}})
	tab.Print([]Cell{{Text: "w"}, {Text: "P"}, {Text: "x"}})
	want := "NAME   PHASE     X\nwéb    Running\na-long-name   P         x\nw             P         x\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// Colour is for terminals. That NO_COLOR is heeded there can be told without one: the test is the same for both.
func TestColour(t *testing.T) {
	tab := &Table{w: &strings.Builder{}, Colour: true, widths: []int{7}}
	if got := tab.format([]Cell{{Text: "Running", Colour: Green}}); got != Green+"Running"+Reset {
		t.Errorf("got %q on a terminal", got)
	}
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if Colourful(f) || Colourful(&strings.Builder{}) {
		t.Error("colour for what is no terminal")
	}
}
