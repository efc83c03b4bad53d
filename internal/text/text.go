// Package text makes texts fit to be stored, sent and shown. What strangers wrote (commits, file names, containers' output, headers) may be
// megabytes long, may be no UTF-8, and may hold what a terminal obeys. It stands beside every room and imports none of them.
package text

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Clip shortens s to at most n bytes, at the end of a character. What was cut off shows as three dots.
func Clip(s string, n int) string {
	const dots = "..."
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:max(n-len(dots), 0)], "") + dots
}

// Printable keeps the printable characters of text that came from outside, and at most so many bytes of them.
func Printable(s string, most int) string {
	s = s[:min(len(s), 4*most)] // first, since it may be megabytes
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// Size writes a number of bytes for people, in KiB or MiB.
func Size(n int64) string {
	if n < 1<<20 {
		return strconv.FormatInt(n>>10, 10) + " KiB"
	}
	return strconv.FormatInt(n>>20, 10) + " MiB"
}

// Count is a number of things in words: `1 project`, `2 projects`.
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Clean strips what a terminal would obey: escape sequences, control characters other than tab and newline, and the
// marks that turn the direction of text.
func Clean(s string) string {
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

// Line is Clean in one line.
func Line(s string) string {
	return strings.Join(strings.Fields(Clean(s)), " ")
}
