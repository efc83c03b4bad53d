// Package testdocker gives the tests, the bench and the demo a real Docker engine, the fixture images in it, and eyes
// to see what a run left behind.
//
// It stands outside the line from a git push to a running container and looks at its last station, the engine, from
// the side. What takes a testing.TB is for tests; each has a twin that returns an error for the programs. Invariants:
// an engine that was found is never stopped, one that was started here is taken away with the test or, after a
// crash, by the next run of hack/engine; and nothing is asserted about containers that do not carry the labels asked for.
package testdocker
