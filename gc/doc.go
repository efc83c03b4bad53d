// Package gc deletes what has expired: projects past their expiry, records of terminated projects, overrides that ran out,
// and old history. It is the last step in the life of a project: watch -> due -> API.
//
// Invariants:
//
//   - A project is deleted when it expires, not at the next poll: one timer is set to the earliest due time. A project
//     expires in every phase, even if its source is suspended, and however often the process restarts, because due times are
//     read from the objects, never from memory.
//   - Wall time decides. The agenda is checked at least every 30 seconds, so that gc notices a clock that was set or a
//     machine that slept.
//   - A project is marked as expiring once before each expiry. If that mark fails, the project still expires on time.
//   - A change costs O(log n) in the size of the agenda. Waiting costs nothing.
//   - Each action is decided again from the newest state just before it runs, and the request carries the object's uid.
package gc
