// Package git reads manifests from git repositories: over http, https and ssh, and in-process from local paths.
//
// Place on the line: git server -> **sources/git** -> sources -> reconciler. It is the only room that knows git.
//
// Invariants:
//
//   - No worktree, no clone on disk, no git binary: one commit is fetched shallow and manifests are read from its trees.
//   - Memory is spent only after a cap was checked: bytes on the wire are counted as they come, an object's declared
//     size is read before it is inflated, a delta's result before it is built, tree entries are counted as they are
//     walked. Large blobs pass by and are never kept.
//   - Every address is checked when it is connected to, after the name was resolved, on every hop. A redirect to
//     another host is refused.
//   - Credentials are in the request and nowhere else: errors are built from the address without its user part, and
//     what a server says is scrubbed before it is passed on.
//   - A stream that stalls or crawls ends with an error; no total time is set for one that moves.
package git
