// Package sourcetest is the contract of every type of source: what an operator may rely on. Run combines a complete
// `sources.Sources`, an in-memory cluster and a subject from the caller: a repository behind a server, or a directory.
// Server is the API of that cluster.
//
// It is test support for sources, sources/git and sources/dir.
package sourcetest
