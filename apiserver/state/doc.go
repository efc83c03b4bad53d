// Package state holds every object in memory (events as they are stored, the others decoded), and the transactions that change them.
// When a push is processed, it stands between the rules of package apiserver and the `store`.
//
// Invariants:
//
//   - A View is immutable. Code that makes a decision reads one View; two reads of the Cache may show two states.
//   - Cache.Feed is the only writer of views. It applies whole transactions in the order of the store's revisions, so a
//     View is a state that the store had.
//   - A Tx commits only if nothing that it read has changed. It never reads the Cache.
//   - Messages in a View are shared. Code that changes one clones it first.
package state
