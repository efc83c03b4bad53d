// Package testdocker gives tests, benchmarks and the demo a real Docker engine with the fixture images, and lists what a
// run left behind.
//
// It checks the last stage of a push from outside. Functions with a testing.TB are for tests; each has a variant for
// programs that returns an error. Invariants: an existing engine is never stopped. An engine that was started here is
// removed with the test or, after a crash, by the next run of hack/engine. Containers without the requested labels are
// ignored.
package testdocker
