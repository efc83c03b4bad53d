// Package step decides what an agent does next for one project. On the straight line it stands between the assignment that comes from the
// server (Want) and the engine's state that the agent has just read (Have): Step returns the actions, and Report what the server is told.
//
// Everything here is a pure function of its arguments. Nothing reads a clock, a disk, an engine or the network, so each decision is one row of a
// table in a test.
//
// What holds:
//
//   - Step never returns an action against a container that is as wanted, so an agent that starts anew adopts containers and restarts none.
//   - Step sees only what carries our labels, so no action is about anything that is not ours.
//   - Of two containers of one service during an update, the old one serves and is kept up until the new one is ready, and for good if the new one
//     fails (update.go). The engine's own state says which is which.
//   - Nothing is done again and again without a pause (pace.go, retry.go, pull.go).
//   - No value of a Secret is in a Record, a Report or a message (secrets.go).
package step
