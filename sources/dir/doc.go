// Package dir reads manifests from a local directory, which can replace a repository during development.
//
// Data flow: a directory -> **sources/dir** -> sources -> reconciler. It is the only package that uses fsnotify.
//
// Invariants:
//
//   - Only a scan is reliable. A notification is a hint that a scan may find something. A lost notification costs one rescan
//     interval.
//   - A root that is missing, unreadable, or has lost the file system that was mounted on it is unavailable, never empty.
//   - The revision is a hash over paths and contents, so touching a file changes nothing.
//   - Nothing outside the root is read. Links are not followed, except through `..data`, which Kubernetes uses to replace
//     all files of a volume atomically.
//   - A file that changes while it is read is read again, and so is one that was emptied a moment ago: an editor may still write it.
//   - A read returns what was listed. If the file changed since, it returns ErrMoved.
package dir
