package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlTrees parses each document to a tree of nodes. It skips empty documents.
func (p trees) yamlTrees(text []byte) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) {
		dec := yaml.NewDecoder(bytes.NewReader(text))
		for count := 0; ; {
			var doc yaml.Node
			err := decode(dec, &doc)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				p.syntax(text, err)
				return
			}
			if len(doc.Content) == 0 || isNull(doc.Content[0]) {
				continue
			}
			if count++; count > maxDocuments {
				p.tooManyDocuments(doc.Content[0])
				return
			}
			if !yield(doc.Content[0]) {
				return
			}
		}
	}
}

// decode parses one document. It turns a panic of the library into an error, because anyone may push a file.
func decode(dec *yaml.Decoder, doc *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML reader broke on it: %v", r)
		}
	}()
	return dec.Decode(doc)
}

func (p trees) tooManyDocuments(n *yaml.Node) {
	p.problem(n, "", "the file has more than %d documents; split it into several files", maxDocuments)
}

// quotedAnchor matches what the library quotes of a file, which may be part of a Secret's value.
var quotedAnchor = regexp.MustCompile(`anchor '.*'`)

// syntax converts the library's error to a problem. It quotes nothing of the document, because a document with a syntax
// error may be a Secret. The library reports only the line; the column is the line's first character.
func (p trees) syntax(text []byte, err error) {
	line, message := lineOf(err)
	lines := bytes.Split(text, []byte("\n"))
	if anchor, ok := strings.CutPrefix(message, "unknown anchor "); ok {
		name := strings.Trim(strings.TrimSuffix(anchor, " referenced"), "'")
		if i := bytes.Index(text, []byte("*"+name)); i >= 0 {
			at, column := place(text, i)
			p.problemAt(at, column, "", "there is no anchor of this name before this alias; put a text that begins with * in quotes")
			return
		}
	}
	message = quotedAnchor.ReplaceAllString(message, "anchor")
	line = max(1, min(line, len(lines)))
	indent := len(lines[line-1]) - len(bytes.TrimLeft(lines[line-1], " \t"))
	if strings.Contains(message, "cannot start any token") {
		if at, ok := tabNear(lines, line); ok {
			line = at
			indent = bytes.IndexByte(lines[at-1], '\t')
			message = "a tab where spaces are wanted; indent with spaces"
		}
	}
	if line == len(lines) && len(bytes.TrimSpace(lines[line-1])) == 0 {
		indent = 0
	}
	if strings.Contains(message, "incompatible YAML document") {
		message += "; remove the %YAML line, or write %YAML 1.2"
	}
	if strings.HasPrefix(message, "did not find expected ','") && bytes.Contains(lines[line-1], []byte("${")) {
		message += "; inside braces and brackets a variable needs quotes, and a number with a variable a line of its own"
	}
	p.problemAt(line, indent+1, "", "not YAML: "+message)
}

// parserError matches the errors of the library's parser, in contrast to those of its scanner.
var parserError = regexp.MustCompile(`^(did not find expected (<stream-start>|<document start>|node content|'-' indicator|key|',' or '[\]}]')|found (duplicate %|incompatible YAML|undefined tag))`)

// lineOf returns the line and the message of an error of the YAML library. The line is 0 if the error names none.
func lineOf(err error) (line int, message string) {
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message)
	if m == nil {
		return 0, message
	}
	line, _ = strconv.Atoi(m[1]) // 0 for a number that is too large
	message = message[len(m[0]):]
	if parserError.MatchString(message) { // the library counts the lines of these from 0
		line++
	}
	return line, message
}

// tabNear finds the line with a tab in its indentation. The library's line may be off by one.
func tabNear(lines [][]byte, line int) (int, bool) {
	for _, at := range []int{line, line + 1, line - 1} {
		if at < 1 || at > len(lines) {
			continue
		}
		text := lines[at-1]
		if bytes.IndexByte(text[:len(text)-len(bytes.TrimLeft(text, " \t"))], '\t') >= 0 {
			return at, true
		}
	}
	return 0, false
}

// Tags that the library sets for plain values.
const (
	tagNull      = "!!null"
	tagBool      = "!!bool"
	tagInt       = "!!int"
	tagFloat     = "!!float"
	tagString    = "!!str"
	tagTimestamp = "!!timestamp"
	tagBinary    = "!!binary"
	tagMap       = "!!map"
	tagSeq       = "!!seq"
	tagMerge     = "!!merge"
)

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == tagNull }

// pair is one key with its value.
type pair struct{ key, value *yaml.Node }

// Follow returns the node that an alias refers to, or the node itself.
func Follow(n *yaml.Node) *yaml.Node {
	for hops := 0; n != nil && n.Kind == yaml.AliasNode && hops < 100; hops++ {
		n = n.Alias
	}
	return n
}

// position finds the node of a field, or of its nearest existing parent. Documents without problems do not need it.
func position(root *yaml.Node, field string, line, column int) (int, int) {
	n := root
	for _, step := range steps(field) {
		key, value := child(Follow(n), step)
		if value == nil {
			break
		}
		line, column = value.Line, value.Column
		if key != nil {
			line, column = key.Line, key.Column
		}
		if key != nil && value.Kind == yaml.ScalarNode {
			line, column = value.Line, value.Column
		}
		n = value
	}
	return line, column
}

// steps splits `spec.services[0].labels[a.b]` into spec, services, [0], labels and [a.b].
func steps(field string) []string {
	var out []string
	for field != "" {
		switch i := strings.IndexAny(field, ".["); {
		case field[0] == '[':
			end := strings.LastIndexByte(field, ']')
			if digits := strings.IndexByte(field, ']'); digits > 1 && strings.Trim(field[1:digits], "0123456789") == "" {
				end = digits
			}
			if end < 0 {
				return append(out, field)
			}
			out = append(out, field[:end+1])
			field = strings.TrimPrefix(field[end+1:], ".")
		case i < 0:
			return append(out, field)
		default:
			out = append(out, field[:i])
			field = strings.TrimPrefix(field[i:], ".")
		}
	}
	return out
}

// child returns the element of a list or map for one step: an index or a key.
func child(n *yaml.Node, step string) (key, value *yaml.Node) {
	if n == nil {
		return nil, nil
	}
	name := strings.TrimSuffix(strings.TrimPrefix(step, "["), "]")
	if n.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Content) {
			return nil, n.Content[i]
		}
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}
