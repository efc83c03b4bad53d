// Package bench holds the benchmarks that cross rooms: the API over its real listener with real tokens, a push through
// sources, reconciler and API, the scheduler against a server, git beside what others do with git. What one room can
// measure alone is measured beside its code; "make bench" runs both, and then bench/peers, which prints the table of
// docs/performance.md from the real programs and a real engine.
//
// It stands outside the straight line and looks at all of it. Invariants: every write is on a disk and synced, every
// call is authenticated, and what Cara is compared with is measured in the same run. No benchmark asserts a time.
package bench
