// Package pebble implements store.Store on a local disk, in a Pebble database. The apiserver uses it: every write of the
// cluster becomes durable here, and every watch reads from here. It is the only package that uses Pebble.
//
// # Layout on disk
//
//	m/format     the version of this layout; a newer one than ours is an error
//	m/revision   the newest revision
//	m/compacted  the change log holds everything after this revision
//	o KEY        an object: created, modified, value
//	l REV N KEY  the change log: the N-th event of transaction REV
//
// The file "acknowledged" in the same directory holds the newest acknowledged revision: see mark.
//
// # Invariants
//
//  1. Acknowledged means synced. Commit returns only after the write-ahead log was synced, and readers and watchers see only
//     what was synced. Pebble itself shows a batch before its sync ends. So nobody reads the database directly. Readers use
//     a view: a Pebble snapshot and its revision, published after the sync.
//  2. Revisions appear in order. One goroutine, the committer, assigns revisions and publishes views. It owns the index
//     (which keys exist, at which revisions), so it checks every precondition alone, without a lock or a read.
//  3. One batch holds the objects, the change-log entries and the revision counter of a whole group of transactions. A crash
//     leaves a prefix of the commit order that has every acknowledged transaction, and never a part of a transaction.
//  4. After the first failed write, nothing is written again. Pebble's memory may then differ from the disk. So the failed
//     group is never published, its callers get the error, and every later Commit fails until the process restarts. Done is
//     closed. Reads continue at the last durable revision. A full disk is not a failure: the write waits for space (see
//     health), and Commit returns an error meanwhile. (Pebble itself ends the process if it cannot rotate its write-ahead
//     log or write its MANIFEST.)
//
// A view belongs to the caller that acquired it until it is released. It is held only while bytes are copied out, never
// while a consumer of List or Watch runs. The last release closes its snapshot.
//
// A watch has no queue. It reads the change log in chunks from its current revision. When it has caught up, it waits for the
// next view, which carries the changes of its group (see tail). A watch that falls behind the start of the log gets
// store.ErrCompacted.
package pebble
