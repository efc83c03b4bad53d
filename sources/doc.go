// Package sources watches git repositories and directories and publishes what they declare.
//
// Place on the line: git server -> sources/git (or sources/dir) -> **sources** -> PublishSnapshot -> reconciler.
//
// Invariants:
//
//   - An error is never "empty". A source that cannot be read is a FetchFailed condition; its last good snapshot stays
//     in force, word for word.
//   - A snapshot is complete only if every file that it should have read was read and understood. One bad file holds
//     back the projects that were last seen in it, and makes the snapshot incomplete, so that nothing is pruned on it.
//   - Unchanged means no publish and no write: same revision, read with the same spec. Only the poll times move, and
//     these the server keeps in memory.
//   - Events, webhooks and file notifications are hints. What a driver probes is the truth.
//   - A source is never worked on twice at once; a source that hangs or fails costs the others nothing but a worker.
//   - No credential reaches an error, a log line, an event or a status: drivers scrub what they return.
//
// A pass over one source is: open the driver, probe the revision, stop if nothing changed, list the tree, read the
// files whose content hash is not known, compute the Delta against the claims that stand, publish it in one
// transaction. Delta is pure.
package sources
