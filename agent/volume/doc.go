// Package volume copies the data of a Managed volume from this node to another one, and proves that the copy is equal. The
// agent uses it when an operator moves a project with its data, or drains a node: between the server's decision to move the
// project and the start of its containers on the new node.
//
// The old node's agent has a Sender for each volume, and the new node's agent has one Receiver. They communicate over
// connections of agent/peer, one for each operation. rsync copies the data; this package compares both copies itself.
//
// Invariants:
//
//   - A Receiver accepts data only for a volume that the server has named, and only from the node that the server has named
//     with it. If the permission ends, its running operation ends, too.
//   - Nothing that the other side sends selects a path outside of the volume, or an option of rsync that does: the receiving
//     rsync is a daemon with one module, in a chroot, that refuses all other options.
//   - rsync can open no file outside of the volume (agent/confine), so that no container gets a copy of other files of its node.
//   - Two copies are equal only if both were read and compared: names, types, permissions, owners, times, links, devices,
//     extended attributes and content. A content hash is reused only if the inode, the size and both times of a file are
//     the same as when it was hashed, and if no write can have gone unnoticed since (see Cache).
//   - A copy that a Sender found equal is on the new node's disk, not only in its memory.
//   - No process outlives its operation, or the agent. Everything that is read or kept has a limit.
package volume
