// Package testetcd runs real etcd servers for tests: the version of the product's client, built from a module of its own,
// and the one of Debian's package etcd-server. It has no part in a push.
package testetcd
