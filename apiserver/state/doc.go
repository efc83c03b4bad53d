// Package state is what the server knows of every object, decoded and in memory, and how objects change together. On the
// straight line of a push it stands between the rules of package apiserver and the `store`.
//
// What must hold:
//
//   - A View is immutable. Whoever decides something takes one View and reads that; two looks at the Cache may show two
//     states.
//   - Cache.Feed is the only writer of views. It applies whole transactions in the order of the store's revisions, so a
//     View is a state that the store had.
//   - A Tx commits on condition that nothing it read has changed. It never sees the Cache.
//   - Messages in a View are shared: who changes one clones it first.
package state
