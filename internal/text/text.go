// Package text prepares texts to be stored, sent and shown. A text from outside (commits, file names, container output,
// headers) may be megabytes long, may not be UTF-8, and may contain terminal escape sequences. All stages of a push use it,
// and it imports none of them.
package text

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"unicode"
)

// Clip truncates s to at most n bytes at a character boundary. Three dots mark the end of a truncated text.
func Clip(s string, n int) string {
	const dots = "..."
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:max(n-len(dots), 0)], "") + dots
}

// Short truncates a value that a message quotes.
func Short(s string) string { return Clip(s, 83) }

// Printable returns the printable characters of a text from outside, at most the given number of bytes.
func Printable(s string, most int) string {
	s = s[:min(len(s), 4*most)] // first, because it may be megabytes long
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// Size formats a number of bytes in KiB or MiB.
func Size(n int64) string {
	if n < 1<<20 {
		return strconv.FormatInt(n>>10, 10) + " KiB"
	}
	return strconv.FormatInt(n>>20, 10) + " MiB"
}

// Scale returns a number of bytes in the largest unit of which there is at least one, up to TiB, and the prefix of that unit: Ki for
// KiB, or "" for bytes.
func Scale(bytes float64) (value float64, prefix string) {
	for _, next := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if bytes < 1024 {
			break
		}
		bytes, prefix = bytes/1024, next
	}
	return bytes, prefix
}

// Count formats a number of things: `1 project`, `2 projects`.
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// WithoutPath returns an error of a file operation without the path around it, for a text that names the file in its own way.
func WithoutPath(err error) error {
	if wrapped, ok := errors.AsType[*fs.PathError](err); ok {
		return wrapped.Err
	}
	return err
}

// Innermost returns the last error of a chain, for a text: the outer ones have the steps of a library, or quote URLs.
func Innermost(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

// Clean removes what a terminal would interpret: escape sequences, control characters except tab and newline, and marks
// that change the direction of text.
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

// unescape removes whole escape sequences, so that a coloured log line does not leave their digits.
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

// sequence returns the length of an escape sequence after its ESC: `[` with parameters up to a letter, or `]` with a text
// up to BEL or ST. Of any other sequence only the ESC is removed.
func sequence(s string) int {
	end := -1
	switch {
	case strings.HasPrefix(s, "["):
		end = strings.IndexFunc(s[1:], func(r rune) bool { return r < ' ' || r > '?' }) + 1
	case strings.HasPrefix(s, "]"):
		if end = strings.IndexAny(s, "\a\x1b\n"); end >= 0 && s[end] != '\a' {
			end-- // the character that ends the text is not part of it
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
