// Package manifest parses files strictly into objects, and encodes objects as YAML.
//
// When a push is processed, `sources` reads files and calls Parse; the result goes to the `reconciler`. `caractrl` uses it
// for `apply -f` and `-o yaml`. No other package parses or encodes manifests.
//
// Invariants:
//   - Parse is pure and never panics. Its cost is limited in advance: it counts bytes, nodes and depth in the raw text,
//     finds duplicate keys in linear time, and counts an alias as the nodes that it refers to.
//   - A returned document is valid: every field is known and has the right type, and validate.Object accepts it.
//   - Every problem has a file, line and column inside the file.
//
// The text is scanned once (scan.go) and parsed to a tree of nodes (tree.go for YAML, json.go for JSON). Then the tree is
// converted with the message's descriptor (walk.go, scalar.go). YAML libraries do not decode into maps here, because they
// look for duplicate keys in quadratic time.
package manifest
