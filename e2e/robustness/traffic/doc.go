// Package traffic makes random calls as several clients do, watches as several watchers do, and pushes to a repository. It
// records every call with its times and its outcome, and everything that a watch tells.
//
// It stands where callers of the API and git users stand. One Recorder owns the history; the other types are used by one
// goroutine each.
package traffic
