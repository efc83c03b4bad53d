// Package sources watches git repositories and directories and publishes the projects that they declare.
//
// Data flow: git server -> sources/git (or sources/dir) -> **sources** -> PublishSnapshot -> reconciler.
//
// Invariants:
//
//   - An error never means "empty". A source that cannot be read gets the condition FetchFailed, and its last good snapshot
//     stays in force unchanged.
//   - A snapshot is complete only if every file was read and parsed. One bad file holds the projects that were last seen in
//     it and makes the snapshot incomplete, so that it prunes nothing.
//   - No change means no publish and no write: the same revision, read with the same spec. Only the poll times change, and
//     the server keeps those in memory.
//   - Events, webhooks and file notifications are hints. Only what a driver probes counts.
//   - A source never has two passes at the same time. A source that hangs or fails occupies one worker and does not affect
//     the others.
//   - No credential reaches an error, a log line, an event or a status: drivers scrub what they return.
//
// A pass over one source opens the driver, probes the revision, stops if nothing changed, lists the tree, reads the files
// whose content hash is unknown, computes the Delta against the current claims, and publishes it in one transaction. Delta
// is a pure function. If the driver can read the difference to the last revision, the pass does the same with the files that
// differ, where that has the same result: see settled.
package sources
