// Package scenario is what a robustness run consists of: the cluster, its nodes and its connections, the traffic and the faults
// that are possible, and when the run is over.
//
// It runs the whole line of a push with the real programs and breaks it at random. Run owns every process and goroutine. The
// seed chooses all calls and faults. It does not choose how the machine schedules them, so a repeated run is similar, not
// equal.
package scenario
