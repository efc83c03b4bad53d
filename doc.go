// Package cara is the top of the tree. It holds no code, only the tests that keep the rules of the house: which room
// may use which library and which other room (deps_test.go), that each package says what it is (pkgdoc_test.go), and
// that no file outgrows its reader (length_test.go).
//
// The line from a git push to a running container runs through the packages below it: sources/git, reconciler,
// apiserver, store, scheduler, agent, agent/docker. ARCHITECTURE.md walks along it.
package cara
