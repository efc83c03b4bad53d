// Package api has the helpers for the generated messages: names of kinds, phases and conditions, the allowed phase moves,
// defaults, hashes, diffs and errors. Package validate checks objects, and package syntax parses the texts in their fields.
//
// Every stage of a push uses it: `sources` hashes what it finds, `reconciler` compares hashes, `apiserver` validates and
// checks phase moves, `scheduler` and `agent` read normalized specs, `caractrl` prints diffs. So this package imports none
// of them and does no I/O.
//
// Invariants:
//   - Every function is pure: it depends only on its arguments and does not change them. Returned messages share nothing
//     with the arguments, unless the function says so.
//   - The stored spec is as declared. Normalize returns a clone with defaults. Hash is computed from the meaning of that
//     clone, so two specs that mean the same have the same hash.
//   - An accepted object is safe to use: the loops need not repeat the checks of package validate.
package api
