package scrub

import (
	"cmp"
	"index/suffixarray"
	"slices"
	"strings"
)

// span is a part of a text: from is inclusive, to is exclusive.
type span struct{ from, to int }

type spans []span

// all finds every occurrence of a form. As a word, it must not be next to a letter or digit.
func (f *spans) all(s, form string, word bool) {
	for at := 0; ; {
		i := strings.Index(s[at:], form)
		if i < 0 {
			return
		}
		from, to := at+i, at+i+len(form)
		if !word || !(from > 0 && alphanumeric(s[from-1])) && !(to < len(s) && alphanumeric(s[to])) {
			*f = append(*f, span{from, to})
		}
		at = from + 1
	}
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// cut finds a prefix of a form where the text was truncated.
func (f *spans) cut(s, form string) {
	f.beginning(s, form)
	for at := 0; ; {
		i := strings.Index(s[at:], "...")
		if i < 0 {
			return
		}
		f.beginning(s[:at+i], form)
		at += i + len("...")
	}
}

// beginning finds a prefix of a form at the end of a text.
func (f *spans) beginning(s, form string) {
	for n := min(len(form)-1, len(s)); n >= anywhere; n-- {
		if strings.HasSuffix(s, form[:n]) {
			*f = append(*f, span{len(s) - n, len(s)})
			return
		}
	}
}

// partsOf finds common parts of the text and long values. Every common part of window+step bytes contains one of the
// windows that are looked up.
func (f *spans) partsOf(s string, index *suffixarray.Index) {
	values := index.Bytes()
	for at := 0; at+window <= len(s); at += step {
		for _, place := range index.Lookup([]byte(s[at:at+window]), places) {
			from, to := at, at+window
			for from > 0 && place > 0 && s[from-1] == values[place-1] {
				from, place = from-1, place-1
			}
			for end := place + to - from; to < len(s) && end < len(values) && s[to] == values[end]; end++ {
				to++
			}
			*f = append(*f, span{from, to})
		}
	}
}

// redact replaces each span with the mark. Adjacent spans are merged.
func (f spans) redact(s string) string {
	if len(f) == 0 {
		return s
	}
	slices.SortFunc(f, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out strings.Builder
	end := 0
	for i := 0; i < len(f); {
		from, to := f[i].from, f[i].to
		for i++; i < len(f) && f[i].from <= to; i++ {
			to = max(to, f[i].to)
		}
		out.WriteString(s[end:from])
		out.WriteString(Mark)
		end = to
	}
	out.WriteString(s[end:])
	return out.String()
}
