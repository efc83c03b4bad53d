// Package testacme runs a real certificate authority for tests: pebble of Let's Encrypt, with a DNS server whose records a test
// sets. The authority validates hosts with HTTP-01 at one port, which the test's agents listen on. It rejects some good nonces,
// as pebble does by default, so that each test also tests the repetition of requests.
//
// It has no part in a push. The tests of the loop `certs` and the end-to-end tests use it. Its one rule: pebble keeps everything
// in memory, so an authority that is stopped and started again knows no account, no order and has new roots.
package testacme
