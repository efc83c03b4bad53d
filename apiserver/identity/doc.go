// Package identity says who is calling, and keeps what that rests on: the cluster's certificate authority, the server's
// own certificate, the hashes of tokens, and the key that secrets are encrypted with at rest. On the line that a push
// travels it is the lock in the apiserver's door: every call of a person, a loop or an agent passes it before anything
// else.
//
// What holds here:
//
//  1. Nothing that lets someone in is stored as it is: of a token and of a node's certificate only a SHA-256 is kept,
//     and it is compared in constant time.
//  2. The authority's key, the secrets' key and the first tokens are files of mode 0600 in the data directory, each
//     written whole or not at all.
//  3. A byte that arrives in plaintext from off the loopback never reaches the HTTP server.
//  4. The authority signs the server for server authentication and nodes for client authentication, never both, so
//     that no node can pass for the server.
//
// It knows nothing of the store: the apiserver looks tokens up. An Actor is who the caller turned out to be, and what his
// token bounds him to.
package identity
