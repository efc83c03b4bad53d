// Package pebble keeps the revisioned store of package store on one disk, in a Pebble database. It stands under the
// apiserver on the line of a push: every write of the cluster becomes durable here, and every watch reads from here.
// It is the only room that knows Pebble.
//
// # What is on disk
//
//	m/format     the version of this layout; a newer one than ours is refused
//	m/revision   the newest revision
//	m/compacted  the change log holds what lies after this revision
//	o KEY        an object: created, modified, value
//	l REV N KEY  the change log: the N-th event of transaction REV
//
// Beside the database, the file acknowledged holds the newest acknowledged revision: see mark.
//
// # Invariants
//
//  1. Acknowledged is synced. Commit answers, and a reader or watcher sees, only what the write-ahead log has been
//     synced for. Pebble itself shows a batch before its sync is done; so nobody reads the database directly, but
//     through a view: a Pebble snapshot with the revision it stands for, published after the sync.
//  2. Revisions appear in order. One goroutine, the committer, gives revisions and publishes views. It owns the index
//     (what exists, at which revisions) and so decides every precondition alone, without a lock or a read.
//  3. One batch holds the objects, the change-log entries and the revision counter of a whole group of transactions.
//     A crash leaves a prefix of the acknowledged order, and perhaps more of it, but never a part of a transaction.
//  4. After the first write that fails, nothing is written again. What Pebble then holds in memory may not be what the
//     disk holds, so the failed group is never published, its callers get the error, and every later Commit is refused
//     until the process starts again, which Done tells. Reads go on, at the last revision that was durable. A full disk
//     is no failure: the write waits for room (see health), and Commit refuses meanwhile.
//     (Pebble ends the process by itself when it cannot rotate its write-ahead log or write its MANIFEST.)
//
// A view belongs to whoever acquired it until it is released, and is held only while bytes are copied out: never
// while a consumer of List or Watch works. The last release closes its snapshot.
//
// A watch has no queue. It reads the change log from the revision it has reached, a chunk at a time, and when it has
// caught up waits for the next view, which carries what its group has changed (see tail). One that falls behind the
// log's start gets store.ErrCompacted.
package pebble
