// Package scrub redacts values of Secrets in texts from engines, registries, health checks and container logs. When a push
// is processed, the agent redacts all such texts before it stores, reports or logs them.
//
// It recognizes:
//
//   - A value of 8 bytes or more anywhere. A value of 4 to 7 bytes only as a whole word, because "true" in "untrue" is not
//     a secret. Shorter values are not recognized: redacting every "1" would destroy texts, and such a value protects
//     nothing.
//   - The usual encodings of a value: URL-encoded, quoted as in Go and JSON, base64 at any alignment, hexadecimal.
//   - Each line of 8 bytes or more of a multi-line value, for programs that write line by line.
//   - A prefix of 8 bytes or more at the end of a text or before "...", because texts are truncated.
//   - Any 48 bytes of a value above 1 KiB, because an engine splits long lines.
//
// Names that are public in the manifest (services, images, volumes) are not redacted.
package scrub

import (
	"bytes"
	"encoding/base64"
	"index/suffixarray"
	"slices"
	"strings"
	"sync"
)

// Mark replaces a value.
const Mark = "<redacted>"

const (
	least    = 4       // bytes of the shortest value that is recognized
	anywhere = 8       // bytes from which a value is recognized inside words
	long     = 1 << 10 // bytes from which any part is recognized
	window   = 32      // bytes of a long value in one lookup; step is the distance to the next
	step     = 16
	places   = 8    // of a window in repetitive values
	maxLines = 1000 // lines of one value that are recognized separately
)

// List holds the values to redact. The zero value and nil redact nothing. It is immutable and can be shared.
type List struct {
	whole []string // recognised anywhere
	words []string // recognised as words
	parts func() *suffixarray.Index
	long  bool
	older []*List // lists that were used before
}

// maxOlder limits the older lists.
const maxOlder = 8

// After returns a list that also redacts the values of an older list, because running containers may still print them.
func (l *List) After(older *List) *List {
	if older == nil || older == l {
		return l
	}
	next := *l
	next.older = nil
	for _, o := range append([]*List{older}, older.older...) {
		alone := *o
		alone.older = nil
		if !alone.Empty() && !alone.same(l) && len(next.older) < maxOlder {
			next.older = append(next.older, &alone)
		}
	}
	return &next
}

func (l *List) same(o *List) bool {
	return !l.long && !o.long && slices.Equal(l.whole, o.whole) && slices.Equal(l.words, o.words)
}

// New returns the list for values. public are names that are not redacted.
func New(values [][]byte, public []string) *List {
	l := &List{}
	var large [][]byte
	for _, v := range values {
		v = bytes.TrimSpace(v)
		if len(v) < least || slices.Contains(public, string(v)) {
			continue
		}
		if len(v) > long {
			large = append(large, v, base64.StdEncoding.AppendEncode(nil, v))
		}
		l.add(string(v))
		for _, line := range lines(v) {
			l.add(line)
		}
	}
	l.whole, l.words = unique(l.whole), unique(l.words)
	l.long = len(large) > 0
	l.parts = sync.OnceValue(func() *suffixarray.Index { return suffixarray.New(bytes.Join(large, []byte{0})) })
	return l
}

func unique(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

func (l *List) add(value string) {
	if len(value) > long {
		return // its parts are recognized
	}
	for _, form := range spellings(value) {
		if len(form) < anywhere {
			l.words = append(l.words, form)
		} else {
			l.whole = append(l.whole, form)
		}
	}
}

// lines returns the lines of a multi-line value, without those that frame every key or certificate.
func lines(value []byte) []string {
	if !bytes.ContainsAny(value, "\n\r") {
		return nil
	}
	var out []string
	for line := range strings.FieldsFuncSeq(string(value), func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(line)
		if len(line) >= anywhere && !strings.HasPrefix(line, "-----") && len(out) < maxLines {
			out = append(out, line)
		}
	}
	return out
}

// Empty reports whether there is nothing to redact.
func (l *List) Empty() bool {
	return l == nil || len(l.whole) == 0 && len(l.words) == 0 && !l.long && len(l.older) == 0
}

// Text returns s with the values redacted.
func (l *List) Text(s string) string {
	if l.Empty() || s == "" {
		return s
	}
	found := l.find(s)
	for _, o := range l.older {
		found = append(found, o.find(s)...)
	}
	return found.redact(s)
}

func (l *List) find(s string) spans {
	var found spans
	for _, form := range l.whole {
		found.all(s, form, false)
		found.cut(s, form)
	}
	for _, form := range l.words {
		found.all(s, form, true)
	}
	if l.long {
		found.partsOf(s, l.parts())
	}
	return found
}

// Error returns err with its text redacted. errors.Is and errors.As still find what it wraps.
func (l *List) Error(err error) error {
	if err == nil || l.Empty() {
		return err
	}
	text := err.Error()
	if clean := l.Text(text); clean != text {
		return redacted{clean, err}
	}
	return err
}

type redacted struct {
	text string
	err  error
}

func (r redacted) Error() string { return r.text }
func (r redacted) Unwrap() error { return r.err }
