// Package loop provides the two parts of every control loop: a copy of the cluster's objects (Mirror) and a queue of keys
// (Queue). Sources, reconciler, scheduler, gc and agent all have the same shape: list, watch, keyed queue, resync.
//
// Invariants that each loop may rely on:
//
//   - A Mirror shows whole transactions in commit order. A loop that sees an object at revision R sees everything that was
//     committed up to R.
//   - Objects in a Mirror are shared and immutable. Clone an object before you change it.
//   - OnChange runs under the mirror's lock, so state that a loop derives from the objects is always current. A change says
//     what to look at, never what to do. After a reconnect, all changes that were missed arrive as one transaction.
//   - To read its own writes, a loop calls Mirror.Reached with the revision of its newest write before it looks at anything.
//   - A Queue never processes a key twice concurrently. A key that is added while it is processed is processed again.
package loop
