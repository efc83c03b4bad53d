// Package api holds the words over the generated messages: names of kinds, phases and conditions, who may move a
// project from one phase to another, defaults, validation, hashes, differences and errors.
//
// Its place on the straight line of a push is everywhere: `sources` hashes what it finds, `reconciler` compares
// hashes, `apiserver` validates and checks moves, `scheduler` and `agent` read normalised specs, `caractrl` prints
// differences. So this package imports none of those rooms and does no I/O.
//
// Invariants:
//   - Every function is pure: the same arguments give the same answer, and no argument is changed. Messages that come
//     back share nothing with messages that went in, unless the function says so.
//   - The stored spec is as declared. Normalize gives the defaulted clone; Hash speaks of that clone's meaning, so two
//     specs that mean the same have the same hash.
//   - An accepted object is safe to act on: whatever Validate lets through, the loops need not check again.
package api
