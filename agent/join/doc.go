// Package join makes a machine a node of a cluster: it exchanges a join token for a client certificate, stores key,
// certificate and CA in the agent's data directory, renews the certificate, and connects to the server with it.
//
// Invariants:
//
//  1. The secret of a join token is sent only to a server whose certificate is signed by the CA in the token's hash. Before
//     that check nothing is sent. Afterwards only that CA is trusted, whatever the machine's own roots are.
//  2. The connection uses TLS, whatever the scheme of the server's URL.
//  3. The private key never leaves the machine. Key, certificate and CA are in one file of mode 0600, written atomically: a
//     crash leaves the old or the new identity.
//  4. A valid certificate is used without contacting the server, so that an agent can start while the server is unreachable.
package join
