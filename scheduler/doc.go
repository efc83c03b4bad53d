// Package scheduler places Pending projects, notices dead nodes and moves what they ran. On the way from a push to a container it is
// between the commit of a project and its agent: it writes which node, and epoch + 1.
//
// What must hold:
//
//   - A node is never given more than it has: what is bound counts from the moment the decision is made (a
//     reservation), not from when its commit is heard of. A Terminating project counts until its agent confirms.
//   - Every bind is a compare-and-swap on the project as it was when the decision was made.
//   - A filter that rejects says why; the counts of whys are the message that a user reads.
//   - A node is given up on the word of the clock only: no heartbeat for a whole time-out. After a start of the
//     scheduler every node counts as fresh for one, so that a restart of the server moves nothing.
//   - It wakes when something changed that could help, never by polling.
package scheduler
