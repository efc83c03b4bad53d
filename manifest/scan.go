package manifest

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// scan checks the raw text once before a library parses it: size, encoding, and the maximum number of nodes.
func (p trees) scan(data []byte) ([]byte, bool) {
	if len(data) > p.limits.Bytes {
		p.problemAt(0, 0, "", fmt.Sprintf("the file has %d bytes, at most %d are allowed; split it into several files", len(data), p.limits.Bytes))
		return nil, false
	}
	text := bytes.TrimPrefix(data, []byte("\uFEFF"))
	if i, what := binary(text); what != "" {
		line, column := place(text, i)
		p.problemAt(line, column, "", fmt.Sprintf("the file is no text: %s; manifests are UTF-8", what))
		return nil, false
	}
	if n := nodeBound(text); n > p.limits.Nodes {
		p.problemAt(0, 0, "", fmt.Sprintf("the file may have up to %d YAML nodes, at most %d are allowed; split it into several files", n, p.limits.Nodes))
		return nil, false
	}
	if n := directives(text); n > maxDirectives {
		p.problemAt(0, 0, "", fmt.Sprintf("the file has %d lines that begin with %%, at most %d are allowed; manifests need no YAML directives", n, maxDirectives))
		return nil, false
	}
	return yaml11(text), true
}

// yaml11 replaces %YAML 1.2 before the first document with the version that the library supports. The versions differ in
// the types of plain words, which this package determines itself.
func yaml11(text []byte) []byte {
	const newer, older = "%YAML 1.2", "%YAML 1.1"
	at := 0
	for line := range bytes.Lines(text) {
		plain := bytes.TrimSpace(line)
		if bytes.Equal(plain, []byte(newer)) && bytes.HasPrefix(line, []byte(newer)) {
			out := bytes.Clone(text)
			copy(out[at:], older)
			return out
		}
		if len(plain) > 0 && plain[0] != '#' && plain[0] != '%' {
			return text
		}
		at += len(line)
	}
	return text
}

// maxDirectives limits %TAG lines, because the library compares each with all others.
const maxDirectives = 100

func directives(text []byte) int {
	n := bytes.Count(text, []byte("\n%")) + bytes.Count(text, []byte("\r%"))
	if bytes.HasPrefix(text, []byte("%")) {
		n++
	}
	return n
}

// binary returns the first byte that is invalid in a manifest, and why.
func binary(text []byte) (int, string) {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return i, "a byte of it is not UTF-8"
		case r == 0:
			return i, "it has a NUL byte"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return i, "it has a control character"
		}
		i += size
	}
	return 0, ""
}

// nodeBound returns an upper bound for the number of nodes in a YAML or JSON text: every node except a document's root
// follows an indicator, and a colon separates two nodes.
func nodeBound(text []byte) int {
	n := 2
	for i, c := range text {
		switch c {
		case ':', ',', '[', '{':
			n += 2
		case '-', '?':
			if i+1 == len(text) || text[i+1] == ' ' || text[i+1] == '\n' || text[i+1] == '\r' || text[i+1] == '\t' {
				n += 2
			} else if (i == 0 || text[i-1] == '\n' || text[i-1] == '\r') && bytes.HasPrefix(text[i:], []byte("---")) {
				n += 2
			}
		}
	}
	return n
}

// place returns the line and column of an offset, both counted from 1. Columns count characters.
func place(text []byte, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

// keepInside keeps every problem inside the file, because the library may count a line after the last one.
func (p trees) keepInside(text []byte) {
	lines := bytes.Count(text, []byte("\n")) + 1
	for _, bad := range p.problems {
		if int(bad.GetLine()) > lines {
			bad.Line, bad.Column = int32(lines), 1
		}
	}
}
