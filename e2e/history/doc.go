// Package history holds the cluster's state against what its clients were told: random clients create, change, compare
// and swap, read and delete a few projects while the server is killed again and again, and afterwards the history of
// each project must be one that a single register could have had (linearizability, checked by porcupine). Watches that
// went on over all restarts must end with what a list shows.
//
// It stands at the end of the line from a push to a running container, beside the other end-to-end tests, and needs
// neither an engine nor git. CARA_SOAK=1 makes it run ten times as long.
package history
