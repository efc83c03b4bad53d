// Package testgit gives the tests, the bench and the demo real git repositories behind real git servers: git
// http-backend over HTTP and HTTPS, OpenSSH, and plain local paths. All of it is the machine's git and sshd.
//
// It stands outside the line from a git push to a running container: it is the git server at its start. What takes a
// testing.TB is for tests; each has a twin that returns an error for the programs. Invariants: the user's git
// configuration, credentials and known hosts are never read or written; repositories live below one root folder,
// NAME.git each, whatever servers stand in front of it; outages and failures belong to the server, never to the
// repository, so a push by local path works while the server is down.
package testgit
