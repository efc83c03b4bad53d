// Package dir reads manifests from a local directory, which stands in for a repository while one develops.
//
// Place on the line: a directory -> **sources/dir** -> sources -> reconciler. It is the only room that knows fsnotify.
//
// Invariants:
//
//   - A scan is the truth; a notification only says that one may be worth making. Lost notifications cost one rescan.
//   - A root that is gone, cannot be read, or lost the file system that was mounted on it, is unavailable, never empty.
//   - The revision is a hash over paths and contents: touching a file changes nothing.
//   - Nothing outside the root is read. Links are not followed, but for those through `..data`, by which Kubernetes
//     swaps the files of a volume at once.
//   - What was listed is what is read: a file that changed since is ErrMoved.
package dir
