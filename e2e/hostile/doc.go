// Package hostile attacks a running server and its agents as a stranger, or a node that lies, would. It stands beside every
// station of the line from a git push to a running container: nothing of what it sends may get through.
//
// A stranger sends bodies that never end, many streams, wide and deep JSON, and connections that say nothing. Those tests
// log what the server's memory and CPU come to. They assert that the server goes on to answer, and a generous bound on
// its memory; they never assert a time.
package hostile
