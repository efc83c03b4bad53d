// Package testimage builds the container images of the tests, the bench and the demo out of what is in the tree: one
// static Go binary of fixtures/images each, or the machine's static busybox. Nothing is downloaded and no engine or
// Dockerfile is needed.
//
// It stands outside the line from a git push to a running container: testdocker loads what it builds into an engine,
// testregistry serves it for pulls. Two invariants: the same sources and toolchain give the same image, byte for byte,
// and Fixture.Content names that image without building it, so that a repeated load costs a hash of a few files.
package testimage
