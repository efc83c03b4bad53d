package term

import (
	"cmp"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	words "github.com/caravanserai/cara/internal/text"
)

// Clean removes characters that a terminal would interpret, except line breaks and tabs.
func Clean(s string) string { return words.Clean(s) }

// Line is Clean in one line.
func Line(s string) string { return words.Line(s) }

// Plural returns a number with its noun.
func Plural(n int, noun string) string { return words.Count(n, noun) }

// Short truncates a text to n runes.
func Short(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}

// Age formats a duration as kubectl does: one unit, or two if the first is small. The largest unit is the day.
func Age(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*365*day {
		return fmt.Sprintf("%dd", d/day)
	}
	return duration.HumanDuration(max(d, 0))
}

// Dash returns "-" for an empty text.
func Dash(s string) string { return cmp.Or(s, "-") }
