// Package apiserver is the one door to the cluster: gRPC and REST on one address, for people, agents and the loops.
// On the line of a push it is where a plan becomes an object: the reconciler's apply is validated, authorised and
// committed to the store at revision R here, and from here the watch goes out that wakes the scheduler, the agent and
// caractrl. With the packages below it, it is the only room that knows the store. The objects and their rules are in
// apiserver/objects, the agents in apiserver/dispatch, streams in apiserver/relay, REST in apiserver/rest; this package says
// who may call what, keeps the audit log, and puts them together.
//
// # What holds
//
//  1. One path. Every call, whether it comes over the network, through REST or from a loop in this process, passes the
//     same interceptors (recover, count, authenticate, authorise, validate, audit) and the same service. Who calls is
//     decided by the Authenticator; the identity of a loop is a property of the in-process channel that Client gives
//     it, and nothing that comes over the network can carry it.
//  2. Reads come from the cache, writes go to the store. One goroutine feeds the cache from the store's change log, a
//     transaction at a time. A write is acknowledged when it is durable and the cache has it: who has the answer can
//     read what it wrote.
//  3. Objects in the cache are immutable and shared: with answers, with watchers, with one another. Whoever changes
//     one clones it first. resourceVersion is the revision of the object's last write; it is filled in when an object is
//     decoded and never stored.
//  4. A change is a function from what was read to what is written. Everything that it read is a condition of its
//     transaction, so it either commits on exactly that state or runs again on a newer one. What it does not change it
//     does not write: unchanged is zero writes.
//  5. A phase moves in one function, movePhase of objects, by the table in api.CheckMove; with it go the Phase condition and one event,
//     in the same transaction. A project, its tombstone, its override and its claims on hosts change together or not at
//     all.
//  6. A watch has no queue. It walks the recent transactions in memory at its own revision, or the store's log where it
//     is further behind, and is told Gone (410) where that no longer reaches.
//  7. What changes with every heartbeat or poll stays in memory and out of the store, and is laid over answers.
package apiserver
