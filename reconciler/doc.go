// Package reconciler makes the cluster what the sources say, and keeps it so. On the straight line of a push it stands
// between the snapshot that `sources` published and the API: claims -> `plan` -> apply.
//
// A source's snapshot lies in the store as Claims, one for each project it declares or once declared. For each source
// the reconciler joins its claims with the projects there are, asks package plan what to do about each, does it through the API, and writes what became of it: the claims' status, the source's
// conditions, its last runs. The plan is data: it can be printed and compared.
//
// What must hold:
//
//   - Nothing is deleted that the law protects. A project is pruned only if the claim that is this source's stored
//     inventory names its uid, it is still owned by this source and nobody else claims it, and PruneGate lets the set
//     go as a whole. The server checks uid and owner again in the transaction that deletes.
//   - Unchanged means zero writes. Equality is the hash of spec, labels and annotations; neither the commit nor the
//     place of the file counts. A pass that finds everything in place calls nothing.
//   - The newest wins. A pass reads the newest snapshot there is; what a busy pass missed comes with the next, and one
//     project that is refused never holds up another.
//   - Events are hints. A change only says which source to look at again; every pass decides from state alone, also
//     every Resync. What memory adds (backoff of refused projects, the loop breaker) may be lost with the process.
//   - A claim's status has one writer, this package. What it wrote last is known here before the watch tells it, and no
//     pass begins before the watch has told what the pass before it applied.
package reconciler
