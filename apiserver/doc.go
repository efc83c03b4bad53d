// Package apiserver is the only entry to the cluster: gRPC and REST on one address, for people, agents and the loops. When
// a push is processed, a plan becomes an object here: the server validates and authorises the reconciler's apply and
// commits it to the store at revision R. The watch then wakes the scheduler, the agent and caractrl. Only this package and
// its subpackages use the store. apiserver/objects has the objects and their rules, apiserver/dispatch the agents,
// apiserver/relay the streams, and apiserver/rest the REST interface. This package decides who may call what, writes the
// audit log, and connects the subpackages.
//
// # Invariants
//
// 1. One path. Every call, whether it comes over the network, through REST or from a loop in this process, passes the same
// interceptors (recover, count, authenticate, authorise, validate, audit) and the same service. The Authenticator decides
// who calls. A loop's identity belongs to the in-process channel that Client gives it, and no network call can have it. 2.
// Reads come from the cache, writes go to the store. One goroutine fills the cache from the store's change log, whole
// transactions in their order. A write is acknowledged when it is durable and in the cache, so a client can read its own write.
// 3. Objects in the cache are immutable and shared with answers and watchers. Code that changes an object clones it first.
// resourceVersion is the revision of the object's last write. It is set when an object is decoded and never stored. 4. A
// change is a function from what was read to what is written. Everything that it read is a condition of its transaction: it
// commits on exactly that state or runs again on a newer one. It writes only what it changes; no change is no write. 5.
// Only MovePhase of apiserver/rules changes a phase, by the table in api.CheckMove. The Phase condition and one event are in the
// same transaction. A project, its tombstone, its override and its claims on hosts change together or not at all. 6. A
// watch has no queue. It reads the recent transactions in memory from its own revision, or the store's log if it is further
// behind. If the log no longer reaches back that far, the watch ends with Gone (410). 7. State that changes with every
// heartbeat or poll stays in memory and is added to answers. It is not in the store.
//
// # Several servers
//
// Servers over one store answer every call, each from its own cache. The conditions of a transaction are enough for that: it
// does not matter which server commits. What runs in the background is either harmless on all of them, or belongs to the one
// that has a lease:
//
//   - On every server: the cache, the index of routes, the sessions of its own agents, the ends of calls whose credentials have
//     changed, the addresses that agents are told, the news of the others, the renewal of logins that it uses, and the
//     questions after a recovery. These are in its memory, or written only if they are not yet as they should be.
//   - With the lease of the reconciler: conditions of projects, the Secrets of certificates, and projects that lost nodes hold.
//     They could run anywhere, but each change would be tried by all servers. See Keep.
//   - With the lease of `sources`, before that loop begins: staged claims of an interrupted publication. Another publication may
//     not run meanwhile. See Settle.
//   - On every server, once: the first tokens. Who is slower than another one drops its own.
package apiserver
