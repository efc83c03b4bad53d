// Package scrub takes Secrets' values out of texts that come from outside: what an engine, a registry, a health check or a
// container's log says. On the way from a push to a container it is between them and everything that the agent remembers, reports and
// logs.
//
// What is recognised:
//
//   - A value of 8 bytes or more, wherever it stands. One of 4 to 7 bytes as a word of its own: "true" in "untrue" is no
//     secret. A shorter one is not recognised, since a "1" would leave nothing of any text. It guards nothing either.
//   - Its usual spellings: URL-encoded, quoted as in Go and JSON, base64 at any alignment, hexadecimal.
//   - Each line of a value that has several, from 8 bytes on, for programs that write line by line.
//   - A beginning of 8 bytes or more where the text ends or has "...", since texts are cut.
//   - Of a value of more than 1 KiB, any 48 bytes: an engine cuts a long line into pieces.
//
// Names that the manifest has in clear (of services, images, volumes) are not recognised: everybody sees them there.
package scrub

import (
	"bytes"
	"index/suffixarray"
	"slices"
	"strings"
	"sync"
)

// Mark stands in the place of a value.
const Mark = "<redacted>"

const (
	least    = 4       // bytes of the shortest value that is recognised
	anywhere = 8       // bytes from which on a value is recognised inside of words
	long     = 1 << 10 // bytes from which on any part is recognised
	window   = 32      // bytes of a long value that are looked up; step further each time
	step     = 16
	places   = 8    // of a window in values that repeat themselves
	maxLines = 1000 // of one value that are recognised each for itself
)

// List are the values to take out. The zero value and nil take out nothing. It never changes, so it may be shared.
type List struct {
	whole []string // recognised anywhere
	words []string // recognised as words
	parts func() *suffixarray.Index
	long  bool
	older []*List // what was in force before
}

// maxOlder bounds how many older lists are kept.
const maxOlder = 8

// After returns l together with what an older list takes out: what still runs may say an older value.
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

// New returns the list of values. public are names that are not taken out.
func New(values [][]byte, public []string) *List {
	l := &List{}
	var large [][]byte
	for _, v := range values {
		v = bytes.TrimSpace(v)
		if len(v) < least || slices.Contains(public, string(v)) {
			continue
		}
		if len(v) > long {
			large = append(large, v, []byte(encodeBase64(v)))
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
		return // its parts are recognised
	}
	for _, form := range spellings(value) {
		if len(form) < anywhere {
			l.words = append(l.words, form)
		} else {
			l.whole = append(l.whole, form)
		}
	}
}

// lines are those of a value with several. The lines that frame a key or a certificate are the same in all of them.
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

// Empty reports whether there is nothing to take out.
func (l *List) Empty() bool {
	return l == nil || len(l.whole) == 0 && len(l.words) == 0 && !l.long && len(l.older) == 0
}

// Text returns s without the values.
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

// Error returns err with a text without the values. What it wraps is as before, for errors.Is and errors.As.
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
