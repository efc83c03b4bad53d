package compose

import (
	"fmt"
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

// locate returns the position of a key, such as `services.web.ports.0`, or of its nearest existing parent.
func (in *input) locate(key string) place {
	at, _ := locate(in.files, in.others, key)
	return at
}

// locate also returns how many parts of the key exist. An included or extended file counts if it has more of the key.
func locate(mains, others []*source, key string) (at place, depth int) {
	at, depth = deepest(mains, key)
	if other, more := deepest(others, key); more > depth {
		return other, more
	}
	return at, depth
}

// deepest returns the position of what exists of a key in these files, and how many parts that are; -1 without files. If several
// files have the key, the last one decides its value.
func deepest(files []*source, key string) (best place, depth int) {
	depth = -1
	for _, f := range files {
		if node, here := f.find(strings.Split(key, ".")); here >= depth {
			depth, best = here, place{f.name, node.Line, node.Column}
		}
	}
	return best, depth
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
