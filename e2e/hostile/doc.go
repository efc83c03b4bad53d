// Package hostile attacks a running server and its agents as a stranger, or a node that lies, would. It stands beside every
// station of the line from a git push to a running container: nothing of what it sends may get through.
package hostile
