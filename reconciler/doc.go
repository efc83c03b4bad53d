// Package reconciler makes the cluster match the sources, and keeps it that way. In the path from a push to a container it
// comes between the snapshot that package sources published and the API: claims -> plan -> apply.
//
// The store holds a source's snapshot as Claims, one for each project that the source declares or once declared. For each
// source the reconciler joins its claims with the existing projects, asks package plan what to do about each, does it
// through the API, and writes the results: the claims' status, the source's conditions and its last runs. The plan is data:
// it can be printed and compared.
//
// Invariants:
//
//   - Nothing protected is deleted. A project is pruned only if this source's claim on it names its uid, this source still
//     owns it, nobody else claims it, and PruneGate allows the whole set of deletions. The server checks uid and owner again
//     in the transaction that deletes.
//   - No change means no writes. Equality is the hash of spec, labels and annotations. The commit and the path of the file
//     do not count. A pass that finds everything in place writes nothing.
//   - The newest snapshot wins. Each pass reads the newest snapshot, so the next pass covers what a slow pass missed. One
//     rejected project never blocks another.
//   - Events are hints. A change only says which source to look at again. Every pass, and every Resync, decides from state
//     alone. State in memory (backoff of rejected projects, the loop breaker) may be lost with the process.
//   - Only this package writes a claim's status. It remembers its last write until the watch reports it, and no pass starts
//     before the watch has reported what the previous pass applied.
package reconciler
