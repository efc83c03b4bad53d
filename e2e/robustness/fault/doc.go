// Package fault breaks a running cluster and mends it again: it kills and pauses programs, stops and slows connections, and
// fills disks.
//
// It stands at every point of the line of a push that can fail. A fault is over when Inject returns: what it killed runs again,
// and every connection passes data.
package fault
