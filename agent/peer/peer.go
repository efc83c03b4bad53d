// Package peer provides the TLS configurations for both ends of a connection between agents. The ingress uses it when a
// request arrives at an agent other than the one that runs the project.
//
// Invariants:
//
//  1. Both ends present their node's certificate, and both verify the other against the cluster's CA. A certificate of the
//     server, or of another cluster, is rejected.
//  2. The dialing end names the node that it wants. If another node answers at the address, the connection fails before any
//     byte of a request is sent.
//  3. A certificate is valid only as long as the server accepts it: one of a deleted node, or an old one of a node that
//     joined again, is rejected as soon as the server reports it, even before it expires. See Members.
//  4. The certificate is read at each handshake, so a renewed one is used from then on. Open connections continue.
//  5. A connection ends when the machine at its other end is gone, so that no request waits for a lost node. See Connect.
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
	// Identity returns this node's current certificate and the cluster's CA.
	Identity func() (tls.Certificate, *x509.CertPool)
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// Members are the nodes whose certificates are accepted. Nil accepts every node that the CA has signed.
	Members *Members
}

// Accept returns the configuration of the listening end. It accepts every node of the cluster; see Node.
func (t TLS) Accept() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert, // VerifyConnection verifies with the current CA
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

// Dial returns the configuration for a connection to one node.
func (t TLS) Dial(node string) *tls.Config {
	certificate, _ := t.Identity()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		// A node's certificate has no host names. VerifyConnection checks the node's name instead.
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

// verify returns the node of a certificate. The CA signs certificates for client authentication only for nodes, never for
// the server, so the server's certificate is rejected at both ends.
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

// Node returns the node at the other end of a connection that uses a configuration of this package. It is empty for a
// connection without TLS, and for a node whose certificate has been revoked since the connection was opened.
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
