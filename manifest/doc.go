// Package manifest turns files into objects, strictly, and objects back into YAML.
//
// Its place on the straight line of a push: `sources` reads files and calls Parse; what comes out goes on to the
// `reconciler`. `caractrl` calls it for `apply -f` and `-o yaml`. It is the only room that knows YAML.
//
// Invariants:
//   - Parse is pure and never panics. What it costs is bounded before it is spent: bytes, nodes and depth are counted
//     on the raw text, duplicate keys are found in linear time, and aliases are charged for what they stand for.
//   - A document that comes back is valid: every field is known and of the right type, and api.Validate accepts it.
//   - Every problem says file, line and column, and lies inside the file.
//
// How it works: the text is scanned once (scan.go), read to a tree of nodes (tree.go for YAML, json.go for JSON) and the
// tree is walked against the message's descriptor (walk.go, scalar.go). No YAML library ever decodes into a map: they
// look for duplicate keys in quadratic time.
package manifest
