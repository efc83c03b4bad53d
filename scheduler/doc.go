// Package scheduler places Pending projects on nodes, detects lost nodes and moves their projects. In the path from a push
// to a container it comes between the commit of a project and its agent: it writes the node, and epoch + 1.
//
// Invariants:
//
//   - A node is never overcommitted. A bound project counts from the moment of the decision (a reservation), not from when
//     the watch reports the commit. A Terminating project counts until its agent confirms that it is gone.
//   - Every bind is a compare-and-swap on the version of the project that the decision was based on.
//   - A filter that rejects a node gives a reason. The number of nodes per reason is the message to the user.
//   - A node is lost only when it sent no heartbeat for a whole timeout. The timeout starts again when the scheduler starts,
//     so that a restart of the server moves nothing.
//   - The scheduler wakes when something changed that could matter. It never polls.
package scheduler
