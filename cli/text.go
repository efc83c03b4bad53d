package cli

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// clean strips what a terminal would obey: escape sequences, control characters other than tab and newline, and the
// marks that turn the direction of text.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, unescape(s))
}

// unescape takes whole escape sequences away, so that a coloured log line does not leave its numbers behind.
func unescape(s string) string {
	if !strings.Contains(s, "\x1b") {
		return s
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "\x1b")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		s = after[sequence(after):]
	}
}

// sequence is how long an escape sequence is, after its ESC: `[` with parameters up to a letter, or `]` with a text up
// to BEL or ST. Of any other only the ESC goes.
func sequence(s string) int {
	end := -1
	switch {
	case strings.HasPrefix(s, "["):
		end = strings.IndexFunc(s[1:], func(r rune) bool { return r < ' ' || r > '?' }) + 1
	case strings.HasPrefix(s, "]"):
		if end = strings.IndexAny(s, "\a\x1b\n"); end >= 0 && s[end] != '\a' {
			end-- // the text ended, and what ended it is not part of it
		}
	}
	if end <= 0 || s[end] < ' ' && s[end] != '\a' {
		return 0
	}
	return end + 1
}

// line is clean in one line.
func line(s string) string {
	return strings.Join(strings.Fields(clean(s)), " ")
}

// short cuts a text to n runes.
func short(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}

// age is a duration as kubectl shows it: one unit, two where the first is small.
func age(d time.Duration) string {
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

// dash shows that there is nothing.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
