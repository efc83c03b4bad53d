// Package sourcetest is the contract of every sort of source: what an operator may rely on, whatever stands behind a
// source. Run puts a whole `sources.Sources` over a cluster in memory and a subject that the caller brings: a repository
// behind a server, or a directory. Server is that cluster's half of the API.
//
// It is test support, used by sources, sources/git and sources/dir, and stands outside the line of a push.
package sourcetest
