package compose

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// source is one file, for the positions of its keys and the order of its services.
type source struct {
	name string
	root *yaml.Node
}

type place struct {
	file         string
	line, column int
}

func newSource(name string, data []byte) (*source, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	if len(doc.Content) > 0 {
		root = doc.Content[0]
	}
	return &source{name: name, root: root}, nil
}

// locate returns the position of a key, such as `services.web.ports.0`, or of its nearest existing parent. If several files
// have the key, the last one decides its value.
func (in *input) locate(key string) place {
	best, deepest := place{}, -1
	for _, f := range in.files {
		node, depth := f.find(strings.Split(key, "."))
		if depth >= deepest {
			deepest, best = depth, place{f.name, node.Line, node.Column}
		}
	}
	return best
}

// find returns the node of a key, and how many of its parts exist.
func (s *source) find(key []string) (*yaml.Node, int) {
	at, value := s.root, s.root
	for depth := 0; depth < len(key); depth++ {
		found := false
		// A name may contain dots, so the longest name that exists wins.
		for end := len(key); end > depth && !found; end-- {
			if k, v := child(value, strings.Join(key[depth:end], ".")); v != nil {
				at, value, found = k, v, true
				depth = end - 1
			}
		}
		if !found {
			return at, depth
		}
	}
	return at, len(key)
}

// child returns the key and the value of an entry of a map, or the item of a list.
func child(n *yaml.Node, name string) (key, value *yaml.Node) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind { //nolint:exhaustive // the others have no children
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return n.Content[i], n.Content[i+1]
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "<<" {
				if k, v := merged(n.Content[i+1], name); v != nil {
					return k, v
				}
			}
		}
	}
	return nil, nil
}

// merged looks a name up in the maps that a merge key refers to.
func merged(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		return child(n, name)
	}
	for _, item := range n.Content {
		if k, v := child(item, name); v != nil {
			return k, v
		}
	}
	return nil, nil
}

// keysOf returns the keys of a map at the top of the file, in their order.
func (s *source) keysOf(name string) []string {
	_, m := child(s.root, name)
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	var out []string
	for i := 0; i+1 < len(m.Content); i += 2 {
		out = append(out, m.Content[i].Value)
	}
	return out
}

// near moves a finding about an error of the library without a key to what the text quotes: a line, or a value in a service.
func (g *gatherer) near(f *Finding, text string) {
	for _, main := range g.mains {
		scope := main.root
		if m := regexp.MustCompile(`service "([^"]+)"`).FindStringSubmatch(text); m != nil {
			key, service := serviceOf(main, m[1])
			if service == nil {
				continue
			}
			f.File, f.Line, f.Column = main.name, key.Line, key.Column
			scope = service
		}
		var at *yaml.Node
		if m := regexp.MustCompile(`line (\d+): mapping key`).FindStringSubmatch(text); m != nil {
			at = firstNode(scope, func(n *yaml.Node) bool { return strconv.Itoa(n.Line) == m[1] })
		}
		words := regexp.MustCompile("[^\\s\"'`,:]{2,}").FindAllString(text, 50)
		for _, word := range slices.Backward(words) { // the value comes last
			if at == nil {
				at = firstNode(scope, func(n *yaml.Node) bool { return names(word, n) })
			}
		}
		if at != nil {
			f.File, f.Line, f.Column = main.name, at.Line, at.Column
			return
		}
	}
}

func serviceOf(main *source, name string) (key, value *yaml.Node) {
	_, services := child(main.root, "services")
	if services == nil {
		return nil, nil
	}
	return child(services, name)
}

// names reports whether a word of a message is a value, the part of it before a colon, or its path in the source.
func names(word string, n *yaml.Node) bool {
	before, _, _ := strings.Cut(n.Value, ":")
	return n.Kind == yaml.ScalarNode && before != "" && (word == n.Value || word == before || path.Base(word) == path.Base(n.Value) && strings.Contains(word, "/"))
}

// firstNode returns the first node in the order of the file that fits.
func firstNode(n *yaml.Node, fits func(*yaml.Node) bool) *yaml.Node {
	if n.Kind != yaml.MappingNode && n.Kind != yaml.SequenceNode && fits(n) {
		return n
	}
	for _, c := range n.Content {
		if found := firstNode(c, fits); found != nil {
			return found
		}
	}
	return nil
}
