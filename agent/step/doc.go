// Package step decides what an agent does next for one project. Its inputs are the assignment from the server (Want) and the
// engine's state that the agent has just read (Have). Step returns the actions, and Report the status for the server.
//
// All functions are pure. Nothing reads a clock, a disk, an engine or the network, so each decision is one row of a table
// test.
//
// Invariants:
//
//   - Step never returns an action against an up-to-date container, so a restarted agent adopts containers and restarts
//     none.
//   - Step sees only objects with our labels, so no action concerns anything else.
//   - If a service has two containers during an update, the old one serves and is kept running until the new one is ready,
//     and permanently if the new one fails (update.go). The engine's state tells which is which.
//   - Nothing is repeated without a pause (pace.go, retry.go, pull.go).
//   - No value of a Secret is in a Record, a Report or a message (secrets.go).
package step
