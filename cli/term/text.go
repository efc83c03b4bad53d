package term

import (
	"fmt"
	"time"

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

// Age formats a duration as kubectl does: one unit, or two if the first is small.
func Age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute:
		return units(d, time.Minute, "m", time.Second, "s")
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 8*time.Hour:
		return units(d, time.Hour, "h", time.Minute, "m")
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d < 8*24*time.Hour:
		return units(d, 24*time.Hour, "d", time.Hour, "h")
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func units(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	if rest := d % big / small; rest > 0 {
		return fmt.Sprintf("%d%s%d%s", d/big, bigName, rest, smallName)
	}
	return fmt.Sprintf("%d%s", d/big, bigName)
}

// Dash returns "-" for an empty text.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
