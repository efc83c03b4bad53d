// Package testgit gives tests, benchmarks and the demo real git repositories on real git servers: git http-backend over
// HTTP and HTTPS, OpenSSH, and local paths. It uses the machine's git and sshd.
//
// It is the git server at the start of a push. Functions with a testing.TB are for tests; each has a variant for programs
// that returns an error. Invariants: the user's git configuration, credentials and known hosts are never read or written.
// Repositories are below one root directory as NAME.git, for all servers. Faults belong to a server, not to the repository,
// so a push by local path works while the server is down.
package testgit
