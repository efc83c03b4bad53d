package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// jsonTrees parses consecutive JSON documents to the same trees as YAML. YAML is not a full superset of JSON: it differs
// for a character written as two \u escapes.
func (p trees) jsonTrees(text []byte) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) {
		r := &jsonReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
		r.dec.UseNumber()
		for count := 0; ; {
			var n *yaml.Node
			tok, at, err := r.token()
			if err == nil {
				n, err = r.from(tok, at, 0)
			}
			if errors.Is(err, io.EOF) && r.open == 0 {
				return
			}
			if err != nil {
				r.locate(r.errorOffset(err))
				p.problemAt(r.line, r.column, "", jsonText(err))
				return
			}
			if isNull(n) {
				continue
			}
			if count++; count > maxDocuments {
				p.tooManyDocuments(n)
				return
			}
			if !yield(n) {
				return
			}
		}
	}
}

type jsonReader struct {
	text []byte
	dec  *json.Decoder
	// open counts the lists and maps that are not closed yet.
	open int
	// offset, line and column are the last place that was located. Offsets only increase, so each byte is counted once.
	offset, line, column int
}

var (
	errDepth     = errors.New("flatten them")
	errSurrogate = errors.New("half of a surrogate pair is not a character; write both halves, or the character itself")
)

// repaired reports whether the decoder replaced an invalid \u escape with U+FFFD. Such a value is not what the file says
// and must not be used.
func (r *jsonReader) repaired(value string, at int) bool {
	const replacement = "\uFFFD"
	if !strings.Contains(value, replacement) {
		return false
	}
	raw := string(r.text[at:r.dec.InputOffset()])
	return strings.Count(value, replacement) > strings.Count(raw, replacement)+strings.Count(strings.ToLower(raw), `\ufffd`)
}

// token returns the next token and where it begins. The decoder has already checked the grammar when it returns a token.
func (r *jsonReader) token() (json.Token, int, error) {
	from := int(r.dec.InputOffset())
	tok, err := r.dec.Token()
	for from < len(r.text) && bytes.IndexByte([]byte(" \t\r\n,:"), r.text[from]) >= 0 {
		from++
	}
	return tok, from, err
}

func (r *jsonReader) from(tok json.Token, at, depth int) (*yaml.Node, error) {
	r.locate(at)
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
	switch x := tok.(type) {
	case json.Delim:
		if depth >= maxDepth {
			return nil, fmt.Errorf("lists and maps are nested more than %d deep; %w", maxDepth, errDepth)
		}
		return n, r.fill(n, x, depth)
	case string:
		if r.repaired(x, at) {
			return nil, errSurrogate
		}
		n.Tag, n.Value, n.Style = tagString, x, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = tagFloat, x.String()
		if _, err := x.Int64(); err == nil {
			n.Tag = tagInt
		}
	case bool:
		n.Tag, n.Value = tagBool, fmt.Sprint(x)
	case nil:
		n.Tag, n.Value = tagNull, "null"
	}
	return n, nil
}

// fill parses the elements of a list or a map up to its end.
func (r *jsonReader) fill(n *yaml.Node, delim json.Delim, depth int) error {
	n.Kind, n.Tag, n.Style = yaml.SequenceNode, tagSeq, yaml.FlowStyle
	if delim == '{' {
		n.Kind, n.Tag = yaml.MappingNode, tagMap
	}
	r.open++
	for {
		tok, at, err := r.token()
		if err != nil {
			return err
		}
		if end, ok := tok.(json.Delim); ok && (end == ']' || end == '}') {
			r.open--
			return nil
		}
		element, err := r.from(tok, at, depth+1)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, element)
	}
}

// locate moves line and column forward to an offset.
func (r *jsonReader) locate(offset int) {
	offset = min(max(offset, r.offset), len(r.text))
	line, column := place(r.text[r.offset:offset], offset-r.offset)
	if line > 1 || r.column == 0 {
		r.line, r.column = r.line+line-1, column
	} else {
		r.column += column - 1
	}
	r.offset = offset
}

func (r *jsonReader) errorOffset(err error) int {
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok && bad.Offset > 0 {
		return int(bad.Offset) - 1
	}
	if errors.Is(err, errDepth) || errors.Is(err, errSurrogate) {
		return r.offset
	}
	return len(r.text)
}

func jsonText(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "not JSON: the file ends in the middle of a value; close every brace and bracket"
	}
	if errors.Is(err, errDepth) || errors.Is(err, errSurrogate) {
		return err.Error()
	}
	return "not JSON: " + quotedCharacter.ReplaceAllString(err.Error(), "invalid character")
}

// quotedCharacter matches what the decoder quotes of a file, which may be part of a Secret's value.
var quotedCharacter = regexp.MustCompile(`invalid character '(?:\\.|[^'\\])+'`)
