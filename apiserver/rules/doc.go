// Package rules contains what may happen to projects, volumes, hosts and ports, and what follows from it: phases, owners,
// overrides, deletions, moves, restores, claims, and the events about them. When a push is processed, it decides the
// reconciler's apply, inside the transaction that `apiserver/objects` begins and `apiserver/state` commits.
//
// Invariants:
//
//   - A rule is a function of a state.Tx, or of objects alone. It reads the transaction's own view, so its input is a
//     condition of the commit. It never reads the cache or the server.
//   - Only MovePhase changes a phase, by the table in api.CheckMove. The Phase condition and one event are in the same
//     transaction.
//   - A project, its tombstone, its override and its claims on hosts and ports change together or not at all.
//   - Events and errors never contain the value of a secret.
package rules
