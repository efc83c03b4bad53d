// Package join makes a machine a node of a cluster and keeps it one: it trades a join token for a client certificate,
// keeps key, certificate and authority in the agent's data directory, renews them, and dials the server with them. On
// the line that a push travels it is the wire between the apiserver's watch and the agent.
//
// What holds here:
//
//  1. The secret of a join token is sent only to a server that the authority of the token's hash has signed. Until
//     then nothing is sent; afterwards only that authority is trusted, whatever the machine's own roots say.
//  2. The connection is TLS, whatever the scheme of the server's URL.
//  3. The private key never leaves the machine. Key, certificate and authority are one file of mode 0600, written whole
//     or not at all: a crash leaves the old identity or the new one.
//  4. A certificate that still holds is used without asking the server, so that an agent starts while the server is away.
package join
