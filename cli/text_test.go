package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestClean(t *testing.T) {
	tests := map[string]string{
		"plain\ttext\n":                          "plain\ttext\n",
		"\x1b[31mred\x1b[0m and \x1b[1;32mgreen": "red and green",
		"\x1b]0;title\x07text":                   "text",
		"\x1b]8;;http://x\x1b\\link":             "\\link",
		"\x1b]0;never ended":                     "]0;never ended",
		"\x1b]0;line\nnext":                      "\nnext",
		"\x1b[31":                                "[31",
		"\x1b[":                                  "[",
		"\x1b":                                   "",
		"\x1bM\x1b7text":                         "M7text",
		"\x1b[3\x1b[31mx":                        "[3x",
		"\u009b31m\u202ex\x00\x7f":               "31mx",
		"a\xffb":                                 "a\ufffdb",
	}
	for give, want := range tests {
		if got := clean(give); got != want {
			t.Errorf("clean(%q) is %q, want %q", give, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add(evil)
	f.Add("\x1b]\x1b[")
	f.Fuzz(func(t *testing.T, s string) { harmless(t, "clean", clean(s)) })
}

func TestAge(t *testing.T) {
	tests := map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 150 * time.Second: "2m30s", 10 * time.Minute: "10m",
		179 * time.Minute: "179m", 3 * time.Hour: "3h", 200 * time.Minute: "3h20m", 8 * time.Hour: "8h", 47 * time.Hour: "47h",
		48 * time.Hour: "2d", 49 * time.Hour: "2d1h", 8 * 24 * time.Hour: "8d", 1000 * 24 * time.Hour: "1000d",
	}
	for d, want := range tests {
		if got := age(d); got != want {
			t.Errorf("age of %s is %q, want %q", d, got, want)
		}
	}
}

func TestUntil(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for want, at := range map[string]*timestamppb.Timestamp{
		"-": nil, "in 24h": timestamppb.New(now.Add(24 * time.Hour)), "5m ago": timestamppb.New(now.Add(-5 * time.Minute)),
	} {
		if got := until(now, at).text; got != want {
			t.Errorf("until %v is %q, want %q", at, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for _, tt := range []struct{ give, want string }{{"abc", "abc"}, {"abcd", "ab…"}, {"äöüß", "äö…"}, {"", ""}} {
		if got := short(tt.give, 3); got != tt.want {
			t.Errorf("short(%q) is %q, want %q", tt.give, got, tt.want)
		}
	}
}

func TestQuantity(t *testing.T) {
	for give, want := range map[string]string{
		"": "-", "0": "0", "1023": "1023", "2147483648": "2.0Gi", "128Mi": "128Mi", "16696893440": "15.6Gi", "much": "much", "5497558138880": "5.0Ti",
	} {
		if got := quantity(give).text; got != want {
			t.Errorf("quantity(%q) is %q, want %q", give, got, want)
		}
	}
}

func TestTableKeepsItsColumns(t *testing.T) {
	var b strings.Builder
	tab := newTable(&b)
	tab.print(header("NAME", "PHASE", "X"), []cell{{text: "wéb"}, {text: "Running", colour: green}, {text: ""}})
	tab.print([]cell{{text: "a-long-name"}, {text: "P"}, {text: "x"}})
	tab.print([]cell{{text: "w"}, {text: "P"}, {text: "x"}})
	want := "NAME   PHASE     X\nwéb    Running\na-long-name   P         x\nw             P         x\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// Colour is for terminals. That NO_COLOR is heeded there can be told without one: the test is the same for both.
func TestColour(t *testing.T) {
	tab := &table{w: &strings.Builder{}, colour: true, widths: []int{7}}
	if got := tab.format([]cell{{text: "Running", colour: green}}); got != green+"Running"+reset {
		t.Errorf("got %q on a terminal", got)
	}
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if colourful(f) || colourful(&strings.Builder{}) {
		t.Error("colour for what is no terminal")
	}
}

func TestTelling(t *testing.T) {
	cond := func(typ, status, reason string) *carav1.Condition {
		return &carav1.Condition{Type: typ, Status: status, Reason: reason, Message: reason + "!"}
	}
	tests := []struct {
		name, phase     string
		conditions      []*carav1.Condition
		reason, message string
	}{
		{"nothing is wrong", api.PhaseRunning, []*carav1.Condition{cond("Ready", "True", "Ready"), cond("Phase", "True", "Running")}, "", ""},
		{"pending", api.PhasePending, []*carav1.Condition{cond("Phase", "True", "Created"), cond("Scheduled", "False", "Unschedulable")}, "Unschedulable", "Unschedulable!"},
		{"pulling", api.PhaseScheduled, []*carav1.Condition{cond("Scheduled", "True", "x"), cond("ImagesReady", "False", "Pulling"), cond("Ready", "False", "Waiting")}, "Pulling", "Pulling!"},
		{"unhealthy", api.PhaseRunning, []*carav1.Condition{cond("Ready", "False", "Unhealthy")}, "Unhealthy", "Unhealthy!"},
		{"failed", api.PhaseFailed, []*carav1.Condition{cond("Phase", "True", "Crashed"), cond("Ready", "False", "x")}, "Crashed", "Crashed!"},
		{"overridden too", api.PhaseRunning, []*carav1.Condition{cond("Ready", "False", "Unhealthy"), cond("Overridden", "True", "o")}, "Unhealthy,Overridden", "Unhealthy!; o!"},
		{"only expiring", api.PhaseRunning, []*carav1.Condition{cond("Expiring", "True", "e")}, "Expiring", "e!"},
		{"a phase from the future", "Sleeping", nil, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &carav1.Project{Status: &carav1.ProjectStatus{Phase: tt.phase, Conditions: tt.conditions}}
			if reason, message := telling(p); reason != tt.reason || message != tt.message {
				t.Errorf("got %q, %q, want %q, %q", reason, message, tt.reason, tt.message)
			}
		})
	}
}
