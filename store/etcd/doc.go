// Package etcd implements store.Store on an etcd cluster, so that the state of Cara survives the loss of a machine. The
// apiserver uses it in place of store/pebble: every write of the cluster becomes durable here, and every watch reads from
// here. It is the only package that uses etcd. It has no consensus protocol of its own.
//
// # Layout in etcd
//
// All keys begin with a prefix, such as /cara/:
//
//	PREFIX format    the version of this layout; a newer one than ours is an error
//	PREFIX lock      a mark for servers of older versions, of which one at a time did everything
//	PREFIX locks/    the server that runs each loop, bound to its etcd lease: see Acquire
//	PREFIX servers/  what each running server says about itself, bound to its etcd lease: see Join
//	PREFIX n/ NODE   the server that has the session of a node's agent, bound to the lease of servers/: see Directory
//	PREFIX importing exists while an import is not complete: see Import
//	PREFIX shared    what all servers of the cluster need, sealed by the caller: see Shared
//	PREFIX nlisted   written so that all watches reach the revision of a listing: see announceListing
//	PREFIX o/ KEY    an object: the value as it is
//
// Revisions are etcd's own: Created is the create revision, Modified the mod revision. etcd's history is the change log.
// Other programs may use the same etcd with other prefixes. Their writes make gaps in our revisions, and Compact drops their
// history too.
//
// # Invariants
//
//  1. Acknowledged means committed by a majority of the members. Commit sends one etcd transaction and never repeats it
//     after a member may have begun it. An error other than those of package store leaves open whether it was applied.
//  2. Reads are linearizable: Get and List ask the leader for the newest revision. A List of many keys reads all parts at
//     the revision of the first part.
//  3. A watch has one stream of its own and no queue; etcd and gRPC hold back what a slow reader does not take. When the
//     stream breaks, it continues at the newest yielded revision, on the next member. It puts fragments together, so a reader
//     sees whole transactions: see assembler.
//  4. A watch starts at the revision that its reader has already seen, and drops what is not newer. If it started at the
//     next revision, a compaction of exactly that revision would remove deletions without a report of etcd.
//  5. A transaction with a lease has the condition that its server still has it. A server that was paused for longer than
//     its lease cannot write over its successor. Transactions of calls need no lease: their conditions are enough. Nor do those of a
//     server that finds an agent of its own silent: it writes only if it was not paused, and it still has the agent.
//  6. The record of who has a node's agent replaces only the one that was there when its request began. So a request that
//     arrives late does not take the agent from a newer server.
//  7. A transaction that makes a node NotReady has the condition that this record has not changed since the server read its copy of
//     it. The copy may be behind etcd, and also behind the objects that the server has.
package etcd
