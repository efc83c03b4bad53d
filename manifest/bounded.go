package manifest

import (
	"go.yaml.in/yaml/v3"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Trees parses a YAML file of another format, such as a Compose file, within the limits of a manifest: bytes, nodes, depth and
// aliases, where an alias counts as what it refers to. It refuses binary values, which other readers decode to texts that the
// tree does not show. The result has the documents as trees of nodes.
func Trees(file string, data []byte, limits Limits) ([]*yaml.Node, []*carav1.FileProblem) {
	p := newParser(file, limits)
	text, ok := trees{p}.scan(data)
	if !ok {
		return nil, p.problems
	}
	var roots []*yaml.Node
	for root := range (trees{p}).yamlTrees(text) {
		if !p.bound(root, 1) || !p.visit(root) {
			break
		}
		roots = append(roots, root)
	}
	trees{p}.keepInside(text)
	return roots, p.problems
}

// visit counts each node as often as a reader that follows aliases visits it.
func (p *parser) visit(n *yaml.Node) bool {
	at := n
	if n = Follow(n); n == nil {
		p.problem(at, "", "an alias refers to itself")
		return false
	}
	if !p.charge(n) {
		return false
	}
	if n.ShortTag() == tagBinary {
		p.problem(n, "", "binary values are not supported here; write the text")
		return false
	}
	for _, c := range n.Content {
		if !p.visit(c) {
			return false
		}
	}
	return true
}
