// Package git reads manifests from git repositories: over http, https and ssh, and in-process from local paths.
//
// Data flow: git server -> **sources/git** -> sources -> reconciler. It is the only package that uses git.
//
// Invariants:
//
//   - No worktree, no clone on disk, no git binary: one commit is fetched shallow, and manifests are read from its trees.
//     Between two fetches a driver keeps folders in memory, up to a limit for each driver and for all. The next fetch then
//     brings only the difference.
//   - A limit is checked before memory is allocated: bytes on the wire are counted as they arrive, an object's declared size
//     is checked before it is inflated, a delta's result before it is built, and tree entries as they are walked. Large
//     blobs are skipped and never kept.
//   - Every address is checked at connection time, after name resolution, on every hop. A redirect to another host is an
//     error.
//   - Credentials appear only in requests: errors are built from the address without its user part, and messages of a server
//     are scrubbed.
//   - A stream that stalls or is too slow ends with an error. There is no total timeout for a stream that makes progress.
package git
