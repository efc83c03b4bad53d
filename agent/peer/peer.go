// Package peer is how the agents of a cluster know each other: the TLS configurations of the two ends of a connection
// between agents. On the line that a push travels it lies behind the ingress of the agent that a browser happened to
// ask, and before that of the agent that runs the project.
//
// What holds here:
//
//  1. Both ends present their node's certificate, and both are verified against the cluster's authority. A certificate of
//     the server, or of another cluster, is refused.
//  2. Who dials names the node that it wants. A machine that answers as any other node is refused before a byte of a
//     request is sent, whatever address it was found at.
//  3. A certificate counts as long as the server accepts it: that of a deleted node, or of one that has joined again, is
//     refused as soon as the server has told, though it has not ended. See Members.
//  4. The certificate is asked for at each handshake, so a renewed one is used from then on. Open connections go on.
package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
)

// TLS secures connections between agents.
type TLS struct {
	// Identity returns this node's certificate and the cluster's authority as they are now.
	Identity func() (tls.Certificate, *x509.CertPool)
	// Now is the clock; time.Now where nil.
	Now func() time.Time
	// Members are the nodes whose certificates are accepted; nil for every node that the authority has signed.
	Members *Members
}

// Accept is the configuration of the end that listens. It accepts every node of the cluster; see Node.
func (t TLS) Accept() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert, // VerifyConnection does the rest, with the authority of that moment
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			certificate, _ := t.Identity()
			return &certificate, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := t.verify(state.PeerCertificates)
			return err
		},
		SessionTicketsDisabled: true,
		Time:                   t.Now,
	}
}

// Dial is the configuration of a connection to one node.
func (t TLS) Dial(node string) *tls.Config {
	certificate, _ := t.Identity()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		// A node's certificate has no host names: it is the node's name that counts, and VerifyConnection checks it.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			got, err := t.verify(state.PeerCertificates)
			if err == nil && got != node {
				err = fmt.Errorf("the agent there is that of node %q and not of node %q: give the agent of node %q its own --ingress-address",
					got, node, node)
			}
			return err
		},
		Time: t.Now,
	}
}

// verify returns the node that a certificate belongs to. The authority signs nodes for client authentication only, and
// the server never for that: so the server's certificate is refused at both ends.
func (t TLS) verify(chain []*x509.Certificate) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("the other side presents no certificate")
	}
	now := time.Now
	if t.Now != nil {
		now = t.Now
	}
	_, roots := t.Identity()
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", fmt.Errorf("the other side is not an agent of this cluster: %w", err)
	}
	node, ok := strings.CutPrefix(chain[0].Subject.CommonName, api.PrefixNode)
	if !ok || node == "" {
		return "", errors.New("the other side is not an agent of this cluster: its certificate names no node")
	}
	return node, t.Members.check(node, chain[0])
}

// Node is the node at the other end of a connection that was made with a configuration of this package. It is empty for a
// connection without TLS, and for a node whose certificate has not been accepted since the connection was made.
func (t *TLS) Node(state *tls.ConnectionState) string {
	if t == nil || state == nil || len(state.PeerCertificates) == 0 {
		return ""
	}
	node, _ := strings.CutPrefix(state.PeerCertificates[0].Subject.CommonName, api.PrefixNode)
	if t.Members.check(node, state.PeerCertificates[0]) != nil {
		return ""
	}
	return node
}
