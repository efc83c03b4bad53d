// Package testregistry is a real container registry on the loopback, with the failures of real ones put in front:
// passwords, 404, 429, 500, trickling blobs, silence, outages.
//
// It stands outside the line from a git push to a running container: the engine pulls from it. Two invariants: what
// was pushed is there whatever failure is set, since pushes go around the front door, and only what came through that
// door is counted.
package testregistry
