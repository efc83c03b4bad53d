// Package identity authenticates callers and keeps the files that this needs: the cluster's certificate authority, the
// server's certificate, the hashes of tokens, and the key that encrypts secrets at rest. When a push is processed, every
// call of a person, a loop or an agent is authenticated first.
//
// Invariants:
//
// 1. No credential is stored in usable form. Only the SHA-256 of a token or of a node's certificate is kept, and it is
// compared in constant time. 2. The authority's key, the secrets' key and the first tokens are files of mode 0600 in the
// data directory. Each is written atomically. 3. Plaintext from an address other than loopback never reaches the HTTP
// server. 4. The authority signs the server for server authentication and nodes for client authentication, never both, so a
// node cannot impersonate the server.
//
// This package does not know the store: the apiserver looks up tokens. An Actor is the authenticated caller with the limits
// of its token.
package identity
