package compose

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The library's errors are texts. This file finds what they are about in the files, and writes them as the other findings.

// rewordings are applied in this order to an error of the library in one line.
var rewordings = []struct { //nolint:gochecknoglobals // a table of compiled expressions
	text *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`validating \S+: `), ""},
	{regexp.MustCompile(`false schema`), "is not a key of the Compose specification"},
	{regexp.MustCompile(`: invalid compose project`), ""},
	{regexp.MustCompile(`decoding failed due to the following error\(s\): `), ""},
	{regexp.MustCompile(`error while interpolating \S+: `), ""},
	{regexp.MustCompile(`env file \S+ not found: stat (\S+): no such file or directory`), "$1 does not exist"},
	{regexp.MustCompile(`open (\S+): no such file or directory`), "$1 does not exist"},
	{regexp.MustCompile(`unterminated quoted value .*`), "a value has no closing quote, here or above"}, // the value may be a password
	{regexp.MustCompile(`failed to parse .*mapping key ("[^"]*") already`), "the key $1 is already"},
	{regexp.MustCompile(`^Circular reference: (.*)`), "extends leads back to this service: $1"},
	{regexp.MustCompile(`^include cycle detected: (.*)`), "include leads back to a file that includes it: $1"},
	{regexp.MustCompile(`^dependency cycle detected: (.*)`), "depends_on leads back to this service: $1"},
}

func reword(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, r := range rewordings {
		text = r.text.ReplaceAllString(text, r.with)
	}
	return text
}

var (
	lineOfFile  = regexp.MustCompile(`failed to read (\S+): line (\d+): (.*)`)
	dottedKey   = regexp.MustCompile(`[A-Za-z_][\w-]*(\.[\w-]+)+`)
	keyInBraces = regexp.MustCompile(`(\w)\[([\w-]+)\]`)
	ofService   = regexp.MustCompile(`service "([^"]+)"`)
	ofLine      = regexp.MustCompile(`line (\d+): mapping key`)
	ofCycle     = regexp.MustCompile(`(?s)Circular reference:.* extends (\S+) in `) // the last one is in the circle
	ofOrder     = regexp.MustCompile(`dependency cycle detected: (\S+) `)
	quotedWords = regexp.MustCompile("[^\\s\"'`,:]{2,}")
	undefined   = regexp.MustCompile(`undefined \w+ "?([^\s":]+)`)
	quotedKey   = regexp.MustCompile(`^'\S+' `)
)

// about makes an error of the library a finding. mains are the Compose files of the project, and others are the files that they include
// or extend.
func about(text string, mains, others []*source, main string) Finding {
	f := Finding{Severity: Refusal, File: main, Line: 1, Column: 1, Message: reword(strings.TrimPrefix(text, main+": "))}
	if m := lineOfFile.FindStringSubmatch(f.Message); m != nil { // a file with variables
		f.File, f.Message = m[1], m[3]
		f.Line, _ = strconv.Atoi(m[2]) // digits
		return f
	}
	keys := dottedKey.FindAllString(keyInBraces.ReplaceAllString(text, "$1.$2"), 10)
	if m := ofCycle.FindStringSubmatch(text); m != nil {
		keys = []string{"services." + m[1] + ".extends"}
	} else if m := ofOrder.FindStringSubmatch(text); m != nil {
		keys = []string{"services." + m[1] + ".depends_on"}
	}
	for _, key := range keys {
		if at, depth := locate(mains, others, key); depth > 0 {
			f.File, f.Line, f.Column, f.Key = at.file, at.line, at.column, key
			f.Message = cmp.Or(strings.TrimPrefix(strings.TrimPrefix(f.Message, key), " "), f.Message)
			f.Message = quotedKey.ReplaceAllString(f.Message, "")
			return f
		}
	}
	for _, s := range slices.Concat(mains, others) {
		if s.near(&f, text) {
			break
		}
	}
	return f
}

// near moves a finding to what the text quotes of the file: a line, or a value in a service. It returns false if the file has nothing of it.
func (s *source) near(f *Finding, text string) bool {
	scope := s.root
	m := ofService.FindStringSubmatch(text)
	if m != nil {
		_, services := child(s.root, "services")
		if services == nil {
			return false
		}
		key, service := child(services, m[1])
		if service == nil {
			return false
		}
		f.File, f.Line, f.Column = s.name, key.Line, key.Column
		scope = service
	}
	at := s.quoted(scope, text)
	if at != nil {
		f.File, f.Line, f.Column = s.name, at.Line, at.Column
	}
	return at != nil || m != nil
}

// quoted returns what a text quotes of a part of the file. Values count more than keys, and the last word of the text most.
func (s *source) quoted(scope *yaml.Node, text string) *yaml.Node {
	if m := ofLine.FindStringSubmatch(text); m != nil {
		return firstNode(scope, true, func(n *yaml.Node) bool { return strconv.Itoa(n.Line) == m[1] })
	}
	words := quotedWords.FindAllString(strings.TrimSuffix(text, ": invalid compose project"), 50)
	if m := undefined.FindStringSubmatch(text); m != nil {
		words = []string{m[1]}
	}
	if strings.Contains(text, "has neither an image") {
		key, _ := child(scope, "image")
		return key
	}
	for _, keys := range []bool{false, true} {
		for _, word := range slices.Backward(words) {
			if at := firstNode(scope, keys, func(n *yaml.Node) bool { return names(word, n) }); at != nil {
				return at
			}
		}
	}
	return nil
}

// names reports whether a word of a message is a value, the part of it before a colon, or its path in the source.
func names(word string, n *yaml.Node) bool {
	before, _, _ := strings.Cut(n.Value, ":")
	return before != "" && (word == n.Value || word == before || path.Base(word) == path.Base(n.Value) && strings.Contains(word, "/"))
}

// firstNode returns the first value in the order of the file that fits, or the first key or value.
func firstNode(n *yaml.Node, keys bool, fits func(*yaml.Node) bool) *yaml.Node {
	if n.Kind == yaml.ScalarNode && fits(n) {
		return n
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && !keys {
			continue
		}
		if found := firstNode(c, keys, fits); found != nil {
			return found
		}
	}
	return nil
}
