// Package testimage builds the container images for tests, benchmarks and the demo from the source tree: one static Go
// binary of fixtures/images each, or the machine's static busybox. It downloads nothing and needs no engine or Dockerfile.
//
// It has no part in a push: testdocker loads the images into an engine, and testregistry serves them for pulls. Invariants:
// the same sources and toolchain give the same image, byte for byte. Fixture.Content identifies that image without building
// it, so a repeated load only hashes a few files.
package testimage
